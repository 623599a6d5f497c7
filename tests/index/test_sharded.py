import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import sharded
from index.backend import MODULES
from index.sharded import IndexSpec, ShardedIndex, build_shard, finish
from infra.errors import CorruptArtifact, UsageError
from infra.settings import IndexSettings
from tests.suites.index_backends import brute_force, clustered


def spec_of(shards: int, backend: str = "exact", **settings: Any) -> IndexSpec:
    values = IndexSettings.model_validate({"backend": backend, "shards": shards, **settings})
    return IndexSpec.from_settings(values, seed=3)


def build(vectors: Any, spec: IndexSpec, folder: Path) -> str:
    for shard in reversed(range(spec.shards)):
        build_shard(vectors, spec, shard, folder)
    return finish(folder, spec)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_do_not_show_in_the_answers(shards: int, tmp_path: Path) -> None:
    vectors, queries = clustered(500, 16, 1), clustered(40, 16, 2)
    build(vectors, spec_of(shards), tmp_path)
    rows, scores = ShardedIndex.open(tmp_path).search(queries, 25)
    expected_rows, expected_scores = brute_force(vectors, queries, 25)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("backend", MODULES)
def test_every_backend_works_in_shards(backend: str, tmp_path: Path) -> None:
    vectors = clustered(4000, 16, 1)
    build(vectors, spec_of(2, backend, exact_below=0, rerank=400), tmp_path)
    index = ShardedIndex.open(tmp_path, threads=2)
    rows, scores = index.search(vectors[:300], 10)
    expected, _ = brute_force(vectors, vectors[:300], 10)
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(rows, expected, strict=True)]) > 0.97
    true = np.einsum("qd,qkd->qk", vectors[:300], vectors[rows])
    np.testing.assert_allclose(scores, true, atol=1e-6)
    assert index.structures[0] != "flat" or backend == "exact"


@pytest.mark.parametrize("backend", MODULES)
@pytest.mark.parametrize(("rows", "shards"), [(0, 2), (1, 2), (3, 2), (3, 5), (2, 1)])
def test_fewer_users_than_shards_leave_some_empty(rows: int, shards: int, backend: str, tmp_path: Path) -> None:
    vectors = clustered(rows, 8, 1)
    build(vectors, spec_of(shards, backend), tmp_path)
    index = ShardedIndex.open(tmp_path)
    found, scores = index.search(clustered(4, 8, 2), 6)
    assert index.rows == rows
    expected, _ = brute_force(vectors, clustered(4, 8, 2), rows) if rows else (np.empty((4, 0)), None)
    np.testing.assert_array_equal(found[:, :rows], expected)
    assert (found[:, rows:] == -1).all()
    assert (scores[:, rows:] == -np.inf).all()


def test_equal_scores_come_by_lower_row_across_shards(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(1, 8, 1), 30, axis=0)
    build(vectors, spec_of(3), tmp_path)
    rows, _ = ShardedIndex.open(tmp_path).search(vectors[:1], 30)
    np.testing.assert_array_equal(rows[0], np.arange(30))


def test_the_block_of_queries_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(2500, 16, 1)
    build(vectors, spec_of(2, "ivf_pq", exact_below=0), tmp_path)
    index = ShardedIndex.open(tmp_path)
    whole = index.search(vectors[:100], 10)
    monkeypatch.setattr(sharded, "QUERY_BLOCK", 7)
    for mine, theirs in zip(index.search(vectors[:100], 10), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert index.search(vectors[:0], 10)[0].shape == (0, 10)


def test_a_query_of_another_width_is_refused_with_both_numbers(tmp_path: Path) -> None:
    build(clustered(20, 8, 1), spec_of(2), tmp_path)
    index = ShardedIndex.open(tmp_path)
    with pytest.raises(UsageError, match=r"\(1, 9\), the index has 8 dimensions"):
        index.search(np.zeros((1, 9), np.float32), 3)
    with pytest.raises(UsageError, match="k is 0"):
        index.search(np.zeros((1, 8), np.float32), 0)


def test_the_content_hash_is_of_vectors_and_spec_alone(tmp_path: Path) -> None:
    vectors, spec = clustered(50, 8, 1), spec_of(2, "hnsw")
    first = build(vectors, spec, tmp_path / "a")
    np.save(tmp_path / "vectors.npy", vectors)
    assert build(np.load(tmp_path / "vectors.npy", mmap_mode="r"), spec, tmp_path / "b") == first
    moved = vectors.copy()
    moved[7, 0] += 1e-6
    others = [
        build(moved, spec, tmp_path / "c"),
        build(vectors, replace(spec, seed=4), tmp_path / "d"),
        build(vectors, replace(spec, parameters={**spec.parameters, "ef_search": 7}), tmp_path / "e"),
        build(vectors, spec_of(3, "hnsw"), tmp_path / "f"),
        build(vectors, spec_of(2, "exact"), tmp_path / "g"),
        build(vectors[::-1], spec, tmp_path / "h"),
    ]
    assert len({first, *others}) == 7


def test_a_shard_that_does_not_exist_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shard 2 of 2: no such shard"):
        build_shard(clustered(4, 8, 1), spec_of(2), 2, tmp_path)


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        build(clustered(21, 8, 1), spec_of(2), tmp_path / "index")
        return tmp_path / "index"

    def test_a_missing_shard(self, folder: Path) -> None:
        (folder / "shard-00001").rename(folder / "elsewhere")
        with pytest.raises(CorruptArtifact, match=r"shard-00001.*missing; the index has 2 shards"):
            ShardedIndex.open(folder)

    def test_shards_in_each_others_place(self, folder: Path) -> None:
        (folder / "shard-00001").rename(folder / "elsewhere")
        (folder / "shard-00000").rename(folder / "shard-00001")
        (folder / "elsewhere").rename(folder / "shard-00000")
        with pytest.raises(CorruptArtifact, match="says shard 1 of 2, expected 0 of 2"):
            ShardedIndex.open(folder)

    def test_a_shard_of_another_index(self, folder: Path, tmp_path: Path) -> None:
        build_shard(clustered(9, 8, 1), spec_of(2), 1, folder)
        with pytest.raises(CorruptArtifact, match=r"shard-00001: \(4, 8\)"):
            ShardedIndex.open(folder)
        with pytest.raises(CorruptArtifact, match="beside the others it should be"):
            finish(folder, spec_of(2))

    def test_an_unfinished_index(self, folder: Path) -> None:
        (folder / "index.json").unlink()
        with pytest.raises(CorruptArtifact, match=r"index\.json: cannot be read"):
            ShardedIndex.open(folder)

    @pytest.mark.parametrize("change", [{"version": 2}, {"shards": "two"}, {"rows": None}])
    def test_a_head_that_does_not_fit(self, folder: Path, change: dict[str, Any]) -> None:
        head = folder / "index.json"
        head.write_text(json.dumps(json.loads(head.read_text()) | change))
        with pytest.raises(CorruptArtifact, match=r"index\.json"):
            ShardedIndex.open(folder)

    @pytest.mark.parametrize("name", ["index.json", "shard-00000/shard.json", "shard-00000/backend.json"])
    def test_a_truncated_head(self, folder: Path, name: str) -> None:
        (folder / name).write_text((folder / name).read_text()[:20])
        with pytest.raises(CorruptArtifact, match=name):
            ShardedIndex.open(folder)
