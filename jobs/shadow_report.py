"""Compares what the models of a route scored of the same people: whoever answered, and each shadow.

Read are the files that servers write (infra.shadow_files). Ranks are compared on the newest requests; outcomes, times
and the spread of scores are of all.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats

from infra.errors import CorruptArtifact, PymkError
from infra.model_golden import read_golden
from infra.model_routes import RELEASE, SHADOW, ModelRef
from infra.models import Registry
from infra.shadow_files import DROPPED, files_of
from infra.store import ObjectStore
from infra.times import format_time
from lookup_api.ranking.stability import stability_index

COMPARED = 5000
"""Requests of a model, newest first, of which ranks are compared."""
MOST_SCORES = 500_000
"""Of a model, newest first, that its spread is told by."""
COLUMNS = ["request", "model", "version", "variant", "outcome", "ms", "scores"]
TENTHS = np.linspace(0, 1, 11)[1:-1]
QUANTILES = {"p50": 50, "p95": 95, "p99": 99}

Float32 = npt.NDArray[np.float32]
Pair = tuple[str, str]


@dataclass
class Seen:
    """What files tell of a model. ms, scores: of each file that has some."""

    variants: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    ms: list[Float32] = field(default_factory=list)
    scores: list[Float32] = field(default_factory=list)
    kept: int = 0


@dataclass
class Compared:
    """A shadow beside who answered, request by request. overlaps: by how many of the best are compared."""

    overlaps: dict[int, list[float]]
    kendall: list[float] = field(default_factory=list)
    spearman: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.kendall)

    def add(self, answered: Float32, shadow: Float32) -> None:
        """Scores float32 [n] of the same people; of fewer than two there is nothing to say."""
        if len(answered) < 2:
            return
        first, second = (np.argsort(-scores, kind="stable") for scores in (answered, shadow))
        for k, found in self.overlaps.items():
            best = min(k, len(answered))
            found.append(len(np.intersect1d(first[:best], second[:best])) / best)
        self.kendall.append(_kendall(answered, shadow))
        self.spearman.append(_spearman(answered, shadow))


def compare(store: ObjectStore, surface: str, since: datetime, ks: Sequence[int]) -> dict[str, Any]:
    """What the files since then tell of a surface's models. ks: how many of the best are compared. JSON values.

    {"surface", "since", "files", "models": [{"model", "variants", "outcomes": {…: requests}, "dropped": {why:
    requests}, "ms": {"p50", …}, "drift": stability index beside the scores of its golden batch, or null}], "compared":
    [{"shadow", "answered", "requests", "overlap": {k: mean}, "kendall", "spearman": means, "ks": Kolmogorov and
    Smirnov's distance of their scores}]}
    """
    seen: dict[str, Seen] = {}
    pairs: dict[Pair, Compared] = {}
    keys = list(files_of(store, surface, since))
    for key in reversed(keys):
        table, dropped = _read(store, key)
        for model, counts in dropped.items():
            seen.setdefault(model, Seen()).dropped.update(counts)
        names = _names(table)
        _note(table, names, seen)
        for pair, answered, shadow in _beside(table, names):
            compared = pairs.setdefault(pair, Compared({k: [] for k in ks}))
            if compared.requests < COMPARED:
                compared.add(answered, shadow)
    scores = {name: np.concatenate(one.scores) for name, one in seen.items() if one.scores}
    return {
        "surface": surface,
        "since": format_time(since),
        "files": len(keys),
        "models": [_told(store, name, one, scores.get(name)) for name, one in sorted(seen.items())],
        "compared": [_told_pair(pair, one, scores) for pair, one in sorted(pairs.items()) if one.requests],
    }


def _read(store: ObjectStore, key: str) -> tuple[pa.Table, Mapping[str, Mapping[str, int]]]:
    """Without inputs, and what was dropped: {model: {why: requests}}."""
    try:
        with pq.ParquetFile(store.open_local(key)) as file:
            dropped = orjson.loads((file.metadata.metadata or {}).get(DROPPED, b"{}"))
            return file.read(columns=COLUMNS), dropped
    except (pa.ArrowException, OSError, ValueError) as error:
        fix = "Delete it: what shadows scored is for comparing alone."
        raise CorruptArtifact(f"{store.uri}/{key}: cannot be read: {error}", fix) from error


def _names(table: pa.Table) -> npt.NDArray[np.object_]:
    """`name@version` of each row."""
    return np.asarray(pc.binary_join_element_wise(table["model"], table["version"], "@").to_numpy(zero_copy_only=False))


def _note(table: pa.Table, names: npt.NDArray[np.object_], seen: dict[str, Seen]) -> None:
    for name in np.unique(names.astype(str)).tolist():
        own, one = table.filter(pa.array(names == name)), seen.setdefault(name, Seen())
        one.variants.update(pc.unique(own["variant"]).to_pylist())
        one.outcomes.update(own["outcome"].to_pylist())
        scored = own.filter(pc.is_valid(own["scores"]))
        one.ms.append(scored["ms"].to_numpy().astype(np.float32))
        if one.kept < MOST_SCORES:
            one.scores.append(np.asarray(pc.list_flatten(scored["scores"]), np.float32))
            one.kept += len(one.scores[-1])


def _beside(table: pa.Table, names: npt.NDArray[np.object_]) -> Iterator[tuple[Pair, Float32, Float32]]:
    """((shadow, who answered), the scores of who answered, those of the shadow), newest request first."""
    requests, scores = table["request"].to_numpy(), table["scores"]
    is_shadow = np.asarray(pc.equal(table["variant"], SHADOW)) & np.asarray(pc.is_valid(scores))
    answered = {number: row for row, number in enumerate(requests.tolist()) if table["variant"][row].as_py() != SHADOW}
    for row in np.flatnonzero(is_shadow)[::-1].tolist():
        by = answered.get(int(requests[row]))
        if by is not None:
            yield (names[row], names[by]), _floats(scores[by]), _floats(scores[row])


def _floats(scores: pa.ListScalar) -> Float32:
    return np.asarray(scores.values, np.float32)


def _kendall(one: Float32, other: Float32) -> float:
    """Tau-b, as ties are common; 1 where all of both are tied, as nothing is ranked otherwise."""
    found = float(stats.kendalltau(one, other).statistic)
    return _or_tied(found, one, other)


def _spearman(one: Float32, other: Float32) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:  # which would warn of a division by zero
        return _or_tied(np.nan, one, other)
    return float(np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1])


def _or_tied(found: float, one: Float32, other: Float32) -> float:
    return found if np.isfinite(found) else float(np.ptp(one) == 0 and np.ptp(other) == 0)


def _told(store: ObjectStore, name: str, one: Seen, scores: Float32 | None) -> dict[str, Any]:
    ms = np.concatenate(one.ms) if one.ms else np.zeros(0, np.float32)
    return {
        "model": name,
        "variants": sorted(one.variants),
        "outcomes": dict(sorted(one.outcomes.items())),
        "dropped": dict(sorted(one.dropped.items())),
        "ms": {q: float(np.percentile(ms, p)) for q, p in QUANTILES.items()} if len(ms) else None,
        "drift": _drift(store, name, scores),
    }


def _drift(store: ObjectStore, name: str, scores: Float32 | None) -> float | None:
    """Stability index of the scores, by tenths of those of the golden batch; None of the release's ranker, and where
    the model is gone."""
    if scores is None or not len(scores) or name.partition("@")[0] == RELEASE:
        return None
    ref = ModelRef.parse(name)
    try:
        model, folder = Registry(store).open(ref.name, ref.version)
        golden = read_golden(folder, model.spec).scores
    except PymkError:
        return None
    edges = np.unique(np.quantile(golden, TENTHS))
    found, usual = (_counted(edges, values) for values in (scores, golden))
    return stability_index(found, usual) if len(edges) > 1 else 0.0


def _counted(edges: npt.NDArray[Any], scores: Float32) -> npt.NDArray[np.float64]:
    return np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1).astype(np.float64)


def _told_pair(pair: Pair, one: Compared, scores: Mapping[str, Float32]) -> dict[str, Any]:
    shadow, answered = pair
    return {
        "shadow": shadow,
        "answered": answered,
        "requests": one.requests,
        "overlap": {str(k): float(np.mean(found)) for k, found in one.overlaps.items()},
        "kendall": float(np.mean(one.kendall)),
        "spearman": float(np.mean(one.spearman)),
        "ks": float(stats.ks_2samp(scores[shadow], scores[answered]).statistic),
    }
