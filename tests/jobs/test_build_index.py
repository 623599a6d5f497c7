"""The stage's three ways of building, and its gate."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.sharded import IDS, ShardedIndex
from infra.errors import CorruptArtifact
from infra.settings import Settings
from jobs.build_index import run
from jobs.context import Parent, StageContext, StageResult
from tests.suites.index_backends import brute_force, clustered

SMALL = {"backend": "ivf_pq", "shards": 3, "exact_below": 0, "rerank": 300, "recall_queries": 200}


def context(folder: Path, past: Any, now: Any, threads: int = 2, **index: Any) -> StageContext:
    embeddings = folder / "embeddings"
    embeddings.mkdir(parents=True, exist_ok=True)
    np.save(embeddings / "past.npy", past)
    np.save(embeddings / "now.npy", now)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "graph").mkdir(exist_ok=True)
    np.save(folder / "graph" / "ids.npy", 97 * np.arange(len(now)) - 5)
    return StageContext(
        settings=Settings.model_validate({"run": {"threads": threads}, "index": SMALL | index}),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        lake="",
        inputs={"graph": Parent("g", folder / "graph", "g", {}), "embeddings": Parent("e", embeddings, "hash", {})},
        data=folder / "data",
        spark=lambda: pytest.fail("an index needs no Spark"),
        progress=lambda line: None,
    )


def without_graph(ctx: StageContext) -> dict[str, Parent]:
    """What a shard's task is given: it has no use for the graph."""
    return {kind: parent for kind, parent in ctx.inputs.items() if kind != "graph"}


def run_in_shards(ctx: StageContext, folder: Path) -> StageResult:
    """As Airflow does: a task for each shard, then one that puts them together."""
    inputs = dict(ctx.inputs)
    for shard in range(ctx.settings.index.shards):
        data = folder / f"shard-{shard}"
        data.mkdir(parents=True)
        result = run(replace(ctx, data=data, shard=shard, inputs=without_graph(ctx)))
        inputs[f"index_shard/{shard}"] = Parent(f"s{shard}", data, result.content_hash, {})
    (folder / "whole").mkdir()
    return run(replace(ctx, data=folder / "whole", inputs=inputs))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def views() -> tuple[Any, Any]:
    return clustered(2600, 16, 1), clustered(2600, 16, 2)


def test_both_views_are_indexed_and_measured(tmp_path: Path, views: tuple[Any, Any]) -> None:
    ctx = context(tmp_path, *views)
    result = run(ctx)
    assert result.rows == 2600
    assert result.metrics["recall_at_100"] > 0.95
    assert result.metrics["bytes"] == sum(len(content) for content in contents(ctx.data).values())
    assert result.metrics["structures"] == ["ivf_pq"]
    for view, vectors in zip(("past", "now"), views, strict=True):
        rows, _ = ShardedIndex.open(ctx.data / view).search(vectors[:50], 5)
        expected, _ = brute_force(vectors, vectors[:50], 5)
        assert np.mean(rows == expected) > 0.9
    np.testing.assert_array_equal(np.load(ctx.data / "now" / IDS), 97 * np.arange(2600) - 5)


def test_shard_tasks_make_the_same_artifact_as_one_task(tmp_path: Path, views: tuple[Any, Any]) -> None:
    ctx = context(tmp_path, *views)
    whole, parts = run(ctx), run_in_shards(ctx, tmp_path / "parts")
    assert parts == whole
    assert contents(tmp_path / "parts" / "whole") == contents(ctx.data)


@pytest.mark.parametrize("backend", ["exact", "hnsw", "ivf_pq", "scann"])
def test_threads_do_not_show_in_the_artifact(tmp_path: Path, views: tuple[Any, Any], backend: str) -> None:
    one = context(tmp_path / "one", *views, threads=1, backend=backend)
    two = context(tmp_path / "two", *views, threads=2, backend=backend)
    assert run(one).content_hash == run(two).content_hash
    assert contents(one.data) == contents(two.data)


def test_the_hash_follows_vectors_and_settings(tmp_path: Path, views: tuple[Any, Any]) -> None:
    past, now = views
    ctxs = [
        context(tmp_path / "a", past, now),
        context(tmp_path / "b", now, past),
        context(tmp_path / "c", past, now, rerank=301),
        context(tmp_path / "d", past, now, min_recall=0.1, recall_queries=3),
    ]
    first, swapped, other, same = (run(ctx).content_hash for ctx in ctxs)
    assert len({first, swapped, other}) == 3
    assert same == first


def test_the_hash_follows_whose_the_rows_are(tmp_path: Path, views: tuple[Any, Any]) -> None:
    ctx = context(tmp_path, *views)
    first = run(ctx).content_hash
    np.save(tmp_path / "graph" / "ids.npy", np.arange(2600))
    (tmp_path / "again").mkdir()
    assert run(replace(ctx, data=tmp_path / "again")).content_hash != first


def test_a_shard_task_says_how_many_rows_it_holds(tmp_path: Path, views: tuple[Any, Any]) -> None:
    ctx = context(tmp_path, *views)
    assert [run(replace(ctx, shard=i, data=tmp_path / str(i))).rows for i in range(3)] == [867, 867, 866]


def test_a_missing_or_foreign_shard_is_refused(tmp_path: Path, views: tuple[Any, Any]) -> None:
    ctx = context(tmp_path, *views)
    inputs = dict(ctx.inputs)
    for shard in range(2):
        made = run(replace(ctx, shard=shard, data=tmp_path / str(shard)))
        inputs[f"index_shard/{shard}"] = Parent("s", tmp_path / str(shard), made.content_hash, {})
    with pytest.raises(CorruptArtifact, match="index shard 2 is missing: 2 of 3 are there"):
        run(replace(ctx, inputs=inputs))
    other = context(tmp_path / "other", views[1], views[1])
    made = run(replace(other, shard=2, data=tmp_path / "2"))
    inputs["index_shard/2"] = Parent("s", tmp_path / "2", made.content_hash, {})
    with pytest.raises(CorruptArtifact, match="shard 2 is not of these embeddings"):
        run(replace(ctx, inputs=inputs, data=tmp_path / "fresh"))


def test_low_recall_is_told_with_both_numbers_and_a_remedy(tmp_path: Path) -> None:
    """The release is refused when it is to be published, where the gates and who passes them are kept."""
    noise = np.random.default_rng(1).standard_normal((6000, 64)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    told: list[str] = []
    ctx = context(tmp_path, noise, noise, rerank=1, ivf_probe_share=0.01, target_recall=0)
    result = run(replace(ctx, progress=told.append))
    assert result.metrics["recall_at_100"] < 0.95
    said = r"recall@100 is 0\.\d+, index\.min_recall is 0\.95\. Raise index\.target_recall"
    assert re.search(said, told[-1])


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("backend", ["exact", "hnsw", "ivf_pq", "scann"])
def test_a_graph_of_few_users_has_an_index(tmp_path: Path, rows: int, backend: str) -> None:
    vectors = clustered(rows, 8, 1)
    ctx = context(tmp_path, vectors, vectors, backend=backend, exact_below=20_000)
    whole = run(ctx)
    assert (whole.rows, whole.metrics["recall_at_100"]) == (rows, 1)
    assert run_in_shards(ctx, tmp_path / "parts") == whole
