"""The night's ranker as a version of the model `nightly`: to route to, to hold others against, to go back to."""

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from infra.artifacts import OpenArtifact, find_manifest, open_artifact
from infra.audit import who
from infra.errors import CorruptArtifact, NotFound
from infra.graph import ViewName, open_array
from infra.model_golden import Golden, write_golden
from infra.model_reference import write_reference
from infra.model_routes import NIGHTLY, ModelRef, RouteStore
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec, Resources
from infra.models import CARD, ModelVersion, Registry
from infra.releases import Release
from infra.store import ObjectStore
from jobs.hourly import open_files
from jobs.nightly_blend import NAME as NIGHTLY_BLEND
from jobs.nightly_blend import RANKINGS, push_nightly_blend
from jobs.scoring import Pairs
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.live import STALE_DEFAULTS, newcomer_features
from lookup_api.ranking.model_check import check_model
from lookup_api.ranking.scorers import Float32
from lookup_api.ranking.scoring import RankingModel

log = logging.getLogger(__name__)

NAME = NIGHTLY
RANKER, FEATURE_TABLE = "ranker", "features"
GOLDEN_ROWS = 256
REFERENCE_ROWS, REFERENCE_BLOCKS = 16_384, 4
"""Pairs of the past view that serving is held against, at most, and blocks of users that they are of."""
DAY_S = 86_400
LOADED = 3
"""Times its files that a ranker takes in memory, at most; and what a small one does, in bytes."""
LEAST_BYTES = 32 << 20


def push_nightly(store: ObjectStore, release: Release, life_days: float) -> ModelVersion:
    """The model of a release's ranker, its version the artifact's id; one that is there already stands.

    life_days: age from which what changes by the day is forgotten (ladder.features_life_days), 0 for never.
    """
    version = release.artifacts[RANKER].artifact_id
    registry = Registry(store)
    try:
        return registry.get(NAME, version)
    except NotFound:
        pass
    ranker = open_artifact(store, RANKER, version)
    scratch = store.scratch()
    try:
        folder = scratch / NAME
        shutil.copytree(ranker.path, folder / WEIGHTS)
        spec = spec_of(version, ranker, life_days)
        (folder / "model.toml").write_text(spec.to_toml())
        (folder / CARD).write_text(card_of(release, ranker))
        model, features = RankingModel.open(ranker.path), release.artifacts[FEATURE_TABLE].artifact_id
        rows, learnt = golden_rows(store, features), learnt_rows(store, features)
        write_golden(folder, spec, Golden(_columns(rows), model.score(rows)))
        if len(learnt):
            write_reference(folder, spec, _columns(learnt), model.score(learnt))
        return registry.push(folder, check_model, datetime.now(UTC).replace(microsecond=0), who())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def try_push(store: ObjectStore, release: Release, life_days: float, tell: Callable[[str], None]) -> None:
    """`push_nightly` and `push_nightly_blend`, where a failure is told and no more: the release ranks by its own
    artifacts, not by the models."""
    _tried("the ranker", lambda: push_nightly(store, release, life_days), tell)
    _tried("the blend", lambda: push_nightly_blend(store, release), tell)


def _tried(what: str, push: Callable[[], ModelVersion | None], tell: Callable[[str], None]) -> None:
    try:
        model = push()
    except Exception as error:  # whatever a push dies of, the night goes on
        tell(f"warning: {what} could not be pushed as a model: {error}")
        return
    if model is not None:
        tell(f"model {model.name}@{model.version}: {model.checks['rows']:,} golden rows")


def clean_nightly(store: ObjectStore) -> list[str]:
    """Removes the versions whose ranker artifact was cleaned away, but for those that a surface routes to or would go
    back to; their names."""
    registry = Registry(store)
    try:
        routed = RouteStore(store).read().models()
    except CorruptArtifact as error:
        log.warning("no model is removed, as nobody knows which are routed to: %s", error)
        return []
    gone = [
        model
        for name, kind in ((NAME, RANKER), (NIGHTLY_BLEND, RANKINGS))
        for model in registry.list(name)
        if ModelRef(name=model.name, version=model.version) not in routed
        and find_manifest(store, kind, model.version) is None
    ]
    for model in gone:
        registry.remove(model.name, model.version)
    return [f"{model.name}@{model.version}" for model in gone]


def spec_of(version: str, ranker: OpenArtifact, life_days: float) -> ModelSpec:
    """Inputs are the ranker's columns; a default is what they say of two people of whom nothing is known."""
    nobody = newcomer_features([])
    defaults = assemble(np.zeros((1, len(PAIR_FEATURES)), np.float16), nobody, nobody[None])[0].tolist()
    dated = {f"{side}_{name}" for side in ("viewer", "candidate") for name in STALE_DEFAULTS}
    life_s = life_days * DAY_S or None
    return ModelSpec(
        name=NAME,
        version=version,
        kind="ranker",
        objective="befriend",
        inputs=tuple(
            InputSpec(name=name, default=default, max_age_s=life_s if name in dated else None)
            for name, default in zip(FEATURES, defaults, strict=True)
        ),
        resources=Resources(memory_bytes=max(LEAST_BYTES, LOADED * ranker.manifest.size_bytes), max_rows=32_768),
    )


def card_of(release: Release, ranker: OpenArtifact) -> str:
    """What the ranker learnt, and how well it did on users kept apart."""
    metrics = ranker.manifest.metrics
    lines = [
        f"# The ranker of {release.release_id}",
        "",
        f"Learnt as of {ranker.manifest.as_of} on {metrics.get('learn_labels', 0):,} held-out friendships of the past"
        f" view; kind {metrics.get('kind', 'trees')}. It ranks users without friends by a model of their own.",
        "",
        "Validation, on users whose friendships it did not see:",
        "",
        *(
            f"- {name}: " + ", ".join(f"{measure} {value:.4f}" for measure, value in found.items())
            for name, found in metrics.get("validation", {}).items()
        ),
        "",
        "Scores are log-odds up to a constant, comparable within one viewer.",
    ]
    return "\n".join(lines) + "\n"


def golden_rows(store: ObjectStore, features: str) -> Float32:
    """Rows of the ranker's input, float32 [n, F], spread over the first block of pairs of the now view that has any;
    one row of zeros where there are none."""
    users = open_array(_file_of(store, features, "now/user_features.npy"))
    for part in _parts(store, features, "now"):
        if len(rows := _spread(_file_of(store, features, part), users, GOLDEN_ROWS)):
            return rows
    none = np.zeros((1, len(USER_FEATURES)), np.float32)
    return assemble(np.zeros((1, len(PAIR_FEATURES)), np.float16), none, none)


def learnt_rows(store: ObjectStore, features: str) -> Float32:
    """Rows of the ranker's input, float32 [n, F], spread over pairs of the past view, which it learnt on; none where
    there are none."""
    parts = _parts(store, features, "past")
    some = np.unique(np.linspace(0, len(parts) - 1, REFERENCE_BLOCKS).astype(np.int64)) if parts else ()
    if not len(some):
        return np.zeros((0, len(FEATURES)), np.float32)
    users, most = open_array(_file_of(store, features, "past/user_features.npy")), REFERENCE_ROWS // len(some)
    return np.concatenate([_spread(_file_of(store, features, parts[at]), users, most) for at in some])


def _spread(part: Path, users: Float32, most: int) -> Float32:
    """Rows of the ranker's input, float32 [n, F], of pairs spread evenly over a part. users float32 [N, U]."""
    if not pq.read_metadata(part).num_rows:
        return np.zeros((0, len(FEATURES)), np.float32)
    pairs = Pairs.read(part)
    some = pairs.take(np.unique(np.linspace(0, len(pairs) - 1, most).astype(np.int64)))
    return assemble(some.features, users[some.user], users[some.candidate])


def _columns(rows: Float32) -> dict[str, Float32]:
    return dict(zip(FEATURES, rows.T, strict=True))


def _parts(store: ObjectStore, features: str, view: ViewName) -> list[str]:
    manifest = find_manifest(store, FEATURE_TABLE, features)
    files = manifest.files if manifest else ()
    return sorted(entry.path for entry in files if entry.path.startswith(f"{view}/part-"))


def _file_of(store: ObjectStore, features: str, path: str) -> Path:
    """A file of the feature table, without fetching the others."""
    return open_files(store, FEATURE_TABLE, features, (path,)).path / path
