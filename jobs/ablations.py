"""What each part of the pipeline is worth: how the release would rank without it.

A part is taken out of a copy of the past view's features: what it says of a pair, and the candidates that nobody else
named. Then the stage itself learns the ranker again, which may lean on what is left, and the past view is ranked as the
report ranks it. The whole is learnt again in the same way, so that nothing but the part differs. Some things stay as
they were: places among a user's candidates that only the part filled are empty, not filled by others; embeddings and
walk candidates of a release with profiles have seen profiles; and who ranks for users without friends is the release's
model, whatever is left out. Leaks are looked for by the stage that made the release, not here: what is measured is no
longer what was learnt.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.artifacts import OpenArtifact
from infra.errors import PymkError, UsageError
from infra.graph import Csr, Graph, Int64, open_array
from infra.settings import Ablation, Settings
from infra.times import parse_as_of
from jobs.blocks import parts_of, write_part
from jobs.comparison import compare
from jobs.context import Parent, StageContext
from jobs.held_out import choose_asked, rank_past
from jobs.metrics import PerUser, find_hits, per_user
from jobs.scoring import Scorer
from jobs.train_ranker import learn, read_splits
from lookup_api.ranking import sources
from lookup_api.ranking.features import USER_FEATURES
from lookup_api.ranking.learning import SIGNALS, of_one_signal
from lookup_api.ranking.newcomers import Newcomers
from lookup_api.ranking.ranker import Ranker
from lookup_api.ranking.scoring import RankingModel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
USUAL_SIGNAL = "joint_walk"
"""The single signal that stands for the ranker where validation could not tell which is best."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A part of the pipeline as the ranker meets it.

    columns, user_columns: pair and user features that become 0, or the feature named beside. bits: sources that name
    nobody.
    """

    said: str
    columns: dict[str, str | None] = field(default_factory=dict)
    user_columns: dict[str, str | None] = field(default_factory=dict)
    bits: int = 0


def _none(*names: str) -> dict[str, str | None]:
    return dict.fromkeys(names)


PARTS: dict[Ablation, Part] = {
    "no_gnn": Part(
        "embeddings: their candidates and how near two people are", _none("embedding_dot"), bits=sources.ANN
    ),
    "no_walk": Part(
        "walks over friends, and over friends and groups together: their candidates and scores",
        _none("walk", "joint_walk"),
        bits=sources.WALK | sources.JOINT_WALK,
    ),
    "no_profile": Part(
        "attributes and affiliations: candidates, features, and groups in walks; the encoder has seen them",
        _none(
            "shared_attributes",
            "attribute_lift",
            "attribute_affinity",
            "shared_affiliations",
            "affiliation_lift",
            "affiliation_affinity",
        )
        | {"joint_walk": "walk"},
        _none("groups") | {"volume": "degree"},
        sources.AFFILIATION | sources.JOINT_WALK,
    ),
    "no_factors": Part("factors of the friendship matrix", _none("factors", "factors_back")),
    "no_interactions": Part("interactions between the two", _none("acted", "acted_on")),
}
"""Parts that are taken out of the features, the ranker learnt again."""

SAID: dict[Ablation, str] = {name: part.said for name, part in PARTS.items()} | {
    "no_exposure": "the price of exposure",
    "no_blend": "the blend for diversity",
    "no_ranker": "the ranker: one signal, the best on validation users, in its place",
}
"""What is left out, in words."""


def ablate(ctx: StageContext, hidden: Csr, asked: Int64, names: Sequence[Ablation]) -> dict[str, Any]:
    """{name: {"without": words, "metrics": `compare` of the whole with what is left}} on the asked users.

    ctx: of the report; its inputs are the artifacts, its settings those they were made with.
    """
    if not names:
        return {}
    graph = Graph.open(ctx.inputs["graph"].path)
    made: dict[str, Any] = {}
    with TemporaryDirectory(prefix="ablations-", dir=ctx.data.parent) as scratch:
        trial = Trial(ctx, graph, hidden, asked, Path(scratch))
        for name in dict.fromkeys(names):
            left, signal = trial.without(name)
            words = SAID[name] + (f" ({signal})" if signal else "")
            made[name] = {"without": words, "metrics": compare(trial.whole, left, ctx.settings.run.seed)}
            ctx.progress(f"ablations: {name}: {_line(made[name]['metrics'])}")
    return made


def names_of(text: str) -> list[Ablation]:
    """The names in a list with commas. Raises UsageError for one that is none."""
    found: list[Ablation] = []
    for word in text.split(","):
        known = next((name for name in ABLATIONS if name == word.strip()), None)
        if known is None:
            raise UsageError(f"--ablate {word.strip()}: no such part", f"Known: {', '.join(ABLATIONS)}.")
        found.append(known)
    return found


def ablate_release(
    artifacts: Mapping[str, OpenArtifact], names: Sequence[Ablation], progress: Callable[[str], None]
) -> dict[str, Any]:
    """`ablate` of a finished release, with the settings its artifacts were made with. The release stays as it is."""
    sections: dict[str, Any] = {}
    for artifact in artifacts.values():
        sections |= artifact.manifest.settings
    settings = Settings.model_validate(sections)
    inputs = {
        kind: Parent(one.manifest.artifact_id, one.path, one.manifest.content_hash, one.manifest.__dict__)
        for kind, one in artifacts.items()
    }
    as_of = parse_as_of(artifacts["graph"].manifest.as_of)
    graph = Graph.open(inputs["graph"].path)
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, settings.candidates.learn_users, settings.run.seed)
    with TemporaryDirectory(prefix="report-") as scratch:
        ctx = StageContext(settings, as_of, "", inputs, Path(scratch) / "data", _no_spark, progress)
        return ablate(ctx, hidden, asked, names)


def _no_spark() -> "SparkSession":
    raise PymkError("ablations run in this process", "This is a fault of pymk.")


def _line(metrics: dict[str, Any]) -> str:
    found = metrics["recall@20"]
    if found["own"] is None:
        return "nobody to ask"
    return f"recall@20 {found['other']:.4f}, with it {found['own']:.4f}"


class Trial:
    """Rankings of the same asked users by the same stages, each without one part."""

    def __init__(self, ctx: StageContext, graph: Graph, hidden: Csr, asked: Int64, scratch: Path) -> None:
        self._ctx, self._graph, self._hidden, self._asked, self._scratch = ctx, graph, hidden, asked, scratch
        self._newcomers = Newcomers.open(ctx.inputs["ranker"].path)
        self._features = ctx.inputs["features"].path
        self._settings = ctx.settings
        self._ranker, told = self._learn(self._features)
        self._validation = told["validation"]
        # What is left learns a ranker of the same kind: the choice of one is no part of the difference.
        kind = ctx.settings.ranker.model_copy(update={"kind": self._ranker.kind})
        self._settings = ctx.settings.model_copy(update={"ranker": kind})
        self.whole = self._measure(self._ranker)

    def without(self, name: Ablation) -> tuple[PerUser, str]:
        """What is left without a part, and the signal that took the ranker's place."""
        if name == "no_ranker":
            signal = self._best_signal()
            train, _ = read_splits(self._graph, self._features / "past")
            return self._measure(of_one_signal(SIGNALS[signal], train)), signal
        if name == "no_exposure":
            return self._measure(self._ranker, exposure=0.0), ""
        if name == "no_blend":
            return self._measure(self._ranker, blend="none"), ""
        folder = self._scratch / name
        take_out(PARTS[name], self._features / "past", folder / "past")
        left = self._measure(self._learn(folder)[0], folder)
        shutil.rmtree(folder)
        return left, ""

    def _learn(self, features: Path) -> tuple[Ranker, dict[str, Any]]:
        return learn(*read_splits(self._graph, features / "past"), self._settings)

    def _measure(self, ranker: Ranker, features: Path | None = None, **changed: Any) -> PerUser:
        """By a ranker on these features, the release's if not told, with the settings of `rank` that are changed."""
        folders = {kind: parent.path for kind, parent in self._ctx.inputs.items()}
        folders["features"] = features or self._features
        users = open_array(folders["features"] / "past" / "user_features.npy")
        scorer = Scorer(RankingModel(ranker, self._newcomers), users)
        settings = self._ctx.settings.rank.model_copy(update=changed)
        past = rank_past(self._graph, folders, self._hidden, self._asked, settings, scorer)
        return per_user(find_hits(past.shown, self._asked, self._hidden), self._hidden.degrees()[self._asked])

    def _best_signal(self) -> str:
        found = {name: self._validation[name]["recall_at_20"] for name in SIGNALS if name in self._validation}
        return max(found, key=lambda name: found[name]) if any(found.values()) else USUAL_SIGNAL


def take_out(part: Part, source: Path, target: Path) -> None:
    """Writes one view's features without a part of them."""
    for path in parts_of(source):
        write_part(_table_without(part, pq.read_table(path)), target / path.name)
    users = np.array(open_array(source / "user_features.npy"))
    target.mkdir(parents=True, exist_ok=True)
    np.save(target / "user_features.npy", _users_without(part, users))


def _table_without(part: Part, table: pa.Table) -> pa.Table:
    bits = table["sources"].to_numpy() & np.uint8(0xFF & ~part.bits)
    table = table.set_column(table.schema.get_field_index("sources"), table.schema.field("sources"), pa.array(bits))
    for name, other in part.columns.items():
        at = table.schema.get_field_index(name)
        nothing = pa.array(np.zeros(len(table), np.float16))
        table = table.set_column(at, table.schema.field(name), nothing if other is None else table[other])
    return table.filter(pc.greater(table["sources"], 0)) if part.bits else table


def _users_without(part: Part, users: Float32) -> Float32:
    for name, other in part.user_columns.items():
        users[:, USER_FEATURES.index(name)] = 0 if other is None else users[:, USER_FEATURES.index(other)]
    return users
