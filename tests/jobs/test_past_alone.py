"""Nothing that models learn from knows a friendship that the report asks about."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts import OpenArtifact, open_artifact
from infra.graph import REPORT, Graph
from infra.store import open_store
from jobs.blocks import parts_of
from lookup_api.ranking.features import PAIR_FEATURES
from tests.conftest import SmallRelease, small_pipeline
from tests.suites.damage import read_pairs, with_pairs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

KINDS = ("graph", "encoder", "embeddings", "candidates", "features", "ranker")
Artifacts = dict[str, OpenArtifact]
DAY_US = 86_400_000_000


def artifacts(lake: str, store: str, spark: "SparkSession", until: str) -> Artifacts:
    with small_pipeline(lake, store, spark) as pipeline:
        pipeline.run(until=until)
        return {kind: open_artifact(open_store(store), kind, pipeline.artifact_id(kind)) for kind in KINDS}


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in parts_of(folder)])


def other_future(lake: Path, to: Path, graph: Graph) -> Path:
    """A lake whose held-out friendships with users of REPORT are with other people; all else is as it was.

    Each of those users keeps a friendship for each they had, and so does each of the others.
    """
    table, user, other = read_pairs(lake)
    one, two = (graph.rows_of(ids) for ids in (user, other))
    at = table["connected_at"].combine_chunks().cast("int64").to_numpy(zero_copy_only=False)
    known = (one >= 0) & (two >= 0) & (at >= graph.cutoff_day * DAY_US)
    known &= ((graph.split[one] == REPORT) | (graph.split[two] == REPORT)) & table[
        "disconnected_at"
    ].is_null().to_numpy()
    rows = np.flatnonzero(known)
    swap = graph.split[one[rows]] != REPORT
    reported = np.where(swap, other[rows], user[rows])
    met = np.where(swap, user[rows], other[rows])
    taken = {frozenset(pair) for pair in zip(user.tolist(), other.tolist(), strict=True)}
    draw = np.random.default_rng(7)
    for _ in range(20 * len(rows)):
        i, j = draw.integers(0, len(rows), 2)
        new = [frozenset((reported[i], met[j])), frozenset((reported[j], met[i]))]
        if len(set(new)) == 2 and all(len(pair) == 2 and pair not in taken for pair in new):
            met[i], met[j] = met[j], met[i]
            taken |= set(new)
    user, other = user.copy(), other.copy()
    user[rows], other[rows] = reported, met
    return with_pairs(lake, to, table, user, other)


@pytest.fixture(scope="module")
def two(
    small_release: SmallRelease, spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifacts, Artifacts]:
    """What is made of two lakes that differ in nothing but the friendships that the report asks about."""
    folder = tmp_path_factory.mktemp("future")
    one = artifacts(small_release.lake, small_release.store, spark, "train_ranker")
    graph = Graph.open(one["graph"].path)
    assert graph.hold_out == "time"
    lake = other_future(Path(small_release.lake), folder / "lake", graph)
    return one, artifacts(str(lake), str(folder / "store"), spark, "train_ranker")


def test_the_two_futures_differ(two: tuple[Artifacts, Artifacts]) -> None:
    one, other = (Graph.open(made["graph"].path) for made in two)
    pairs = [{tuple(pair) for pair in graph.held_out.tolist()} for graph in (one, other)]
    differ = np.array(list(pairs[0] ^ pairs[1]))
    assert len(differ) > 0.3 * len(pairs[0])
    assert (one.split[differ] == REPORT).any(axis=1).all()
    assert not np.array_equal(one.now.connections.indices, other.now.connections.indices)


def test_the_past_is_the_same(two: tuple[Artifacts, Artifacts]) -> None:
    one, other = (Graph.open(made["graph"].path).arrays() for made in two)
    for name in one:
        if not name.startswith("now/") and not name.startswith("held_out"):
            np.testing.assert_array_equal(one[name], other[name], name)


@pytest.mark.parametrize("kind", ["candidates", "features"])
def test_candidates_and_features_of_the_past_are_the_same_bit_for_bit(
    two: tuple[Artifacts, Artifacts], kind: str
) -> None:
    one, other = (made[kind].path / "past" for made in two)
    assert read(one).equals(read(other))
    if kind == "features":
        assert (one / "user_features.npy").read_bytes() == (other / "user_features.npy").read_bytes()
        columns = list(PAIR_FEATURES)
        now = [read(made[kind].path / "now").select(columns) for made in two]
        assert not now[0].equals(now[1]), "the later view knows the difference"


def test_what_was_learnt_is_the_same(two: tuple[Artifacts, Artifacts]) -> None:
    one, other = two
    for kind in ("encoder", "ranker"):
        assert one[kind].manifest.content_hash == other[kind].manifest.content_hash, kind
    vectors = [(made["embeddings"].path / "past.npy").read_bytes() for made in two]
    assert vectors[0] == vectors[1]
