"""What every ANN backend must do; known answers come from brute force in float64."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.backend import Backend, Capability, Unsupported, open_backend
from index.recall import recall_at
from infra.errors import CorruptArtifact, UsageError

ROWS, DIMENSIONS, K = 3000, 32, 10


def clustered(rows: int, dimensions: int, seed: int) -> Any:
    """Unit vectors around 60 centres, float32 [rows, dimensions]."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((60, dimensions))
    vectors = centres[draw.integers(0, 60, rows)] + 0.7 * draw.standard_normal((rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(vectors: Any, queries: Any, k: int) -> tuple[Any, Any]:
    """Rows and scores of the k best by float64 inner product, equal scores by row."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), scores.shape), -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


class IndexBackendSuite:
    """Subclasses set `backend` and `parameters`; `large` is the structure expected of 3,000 rows.

    `error`: how far a score may be from the inner product of unit vectors.
    """

    backend: type[Backend]
    parameters: dict[str, int | float]
    large: str
    error: float = 1e-6

    @pytest.fixture(scope="class")
    @classmethod
    def vectors(cls) -> Any:
        return clustered(ROWS, DIMENSIONS, 1)

    @pytest.fixture(scope="class")
    @classmethod
    def built(cls, vectors: Any) -> Backend:
        return cls.build(vectors)

    @pytest.fixture
    def folder(self, built: Backend, tmp_path: Path) -> Path:
        built.save(tmp_path / "saved")
        return tmp_path / "saved"

    @classmethod
    def build(cls, vectors: Any, seed: int = 3) -> Backend:
        return cls.backend.build(vectors, cls.parameters, seed)

    def test_it_finds_nearly_all_that_brute_force_finds(self, built: Backend, vectors: Any) -> None:
        expected, _ = brute_force(vectors, vectors[:200], K)
        rows, _ = built.search(vectors[:200], K)
        found = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(rows, expected, strict=True)])
        assert built.structure == self.large
        assert found >= 0.97

    def test_the_search_is_widened_until_recall_is_the_target(self) -> None:
        noise = np.random.default_rng(1).standard_normal((4000, DIMENSIONS)).astype(np.float32)
        narrow = dict.fromkeys(("probe_share", "search_share"), 0.02) | {"rerank": 100, "ef_search": 10}
        parameters = {name: narrow.get(name, value) for name, value in self.parameters.items()}
        rows = np.arange(0, 4000, 20)
        asked = [
            recall_at(self.backend.build(noise, parameters | {"target_recall": target}, 3), noise, rows, 100)
            for target in (0.0, 0.99)
        ]
        assert asked[1] > 0.98
        assert asked[0] < asked[1] or self.large == "flat"

    def test_scores_are_true_inner_products_in_descending_order(self, built: Backend, vectors: Any) -> None:
        queries = clustered(50, DIMENSIONS, 9) * 3
        rows, scores = built.search(queries, K)
        assert rows.dtype == np.int32
        assert scores.dtype == np.float32
        assert (np.diff(scores, axis=1) <= 0).all()
        expected = np.einsum("qd,qkd->qk", queries.astype(np.float64), vectors[rows].astype(np.float64))
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=3 * self.error)

    def test_a_row_finds_itself_first(self, built: Backend, vectors: Any) -> None:
        rows, scores = built.search(vectors[::37], 1)
        np.testing.assert_array_equal(rows[:, 0], np.arange(ROWS)[::37])
        np.testing.assert_allclose(scores[:, 0], 1, atol=self.error)

    def test_a_repeatable_answer_depends_on_neither_batch_nor_threads(self, built: Backend, vectors: Any) -> None:
        rows, scores = built.search(vectors[:130], K)
        for step, threads in [(1, 1), (7, 1), (130, 2), (7, 2)]:
            parts = [built.search(vectors[i : min(i + step, 130)], K, threads) for i in range(0, 130, step)]
            found = [np.concatenate(both) for both in zip(*parts, strict=True)]
            if Capability.REPEATABLE in self.backend.capabilities:
                np.testing.assert_array_equal(found[0], rows)
                np.testing.assert_array_equal(found[1], scores)
            assert np.mean(found[0] == rows) > 0.97

    def test_the_same_input_and_seed_give_the_same_index(self, built: Backend, folder: Path, vectors: Any) -> None:
        again = folder.parent / "again"
        self.build(vectors.copy()).save(again)
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name

    def test_a_saved_index_opens_with_the_same_answers(self, built: Backend, folder: Path, vectors: Any) -> None:
        opened = open_backend(folder)
        assert (opened.rows, opened.dimensions, opened.structure) == (ROWS, DIMENSIONS, self.large)
        for mine, theirs in zip(opened.search(vectors[:99], K), built.search(vectors[:99], K), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize("rows", [0, 1, 3, 17, 700])
    def test_few_rows_are_found_whole_and_the_rest_is_padding(self, rows: int, tmp_path: Path) -> None:
        vectors = clustered(rows, DIMENSIONS, 4)
        queries = clustered(5, DIMENSIONS, 5)
        self.build(vectors).save(tmp_path)
        k = min(rows, 20)
        for index in (self.build(vectors), open_backend(tmp_path)):
            found, scores = index.search(queries, 20)
            assert index.rows == rows
            assert found.shape == scores.shape == (5, 20)
            assert (found[:, k:] == -1).all()
            assert (scores[:, k:] == -np.inf).all()
            assert all(len(np.unique(line[:k])) == k for line in found)
            assert (found[:, :k] >= 0).all()

    def test_no_queries_have_no_answers(self, built: Backend) -> None:
        rows, scores = built.search(np.empty((0, DIMENSIONS), np.float32), K)
        assert rows.shape == scores.shape == (0, K)

    def test_equal_rows_come_in_the_order_of_their_rows(self) -> None:
        vectors = np.repeat(clustered(1, DIMENSIONS, 6), 1500, axis=0)
        rows, scores = self.build(vectors).search(vectors[:2], K)
        assert (np.diff(rows, axis=1) > 0).all()
        np.testing.assert_allclose(scores, 1, atol=1e-6)

    @pytest.mark.parametrize("dimensions", [1, 3, 10, 127])
    def test_any_width_can_be_indexed(self, dimensions: int) -> None:
        vectors = clustered(1500, dimensions, 7)
        rows, scores = self.build(vectors).search(vectors[:40], 5)
        _, best = brute_force(vectors, vectors[:40], 5)
        assert (rows >= 0).all()
        assert np.mean(np.isclose(scores, best, atol=max(1e-4, self.error))) > 0.9

    def test_a_wrong_width_is_refused_with_both_numbers(self, built: Backend) -> None:
        with pytest.raises(UsageError, match=r"\(4, 7\).*32 dimensions"):
            built.search(np.zeros((4, 7), np.float32), K)
        with pytest.raises(UsageError, match="k is 0"):
            built.search(np.zeros((4, DIMENSIONS), np.float32), 0)

    def test_a_vector_that_is_not_finite_is_refused_with_its_row(self, vectors: Any) -> None:
        broken = vectors.copy()
        broken[41, 3] = np.nan
        broken[77, 0] = np.inf
        with pytest.raises(UsageError, match="2 of 3000 rows are not finite, the first is row 41"):
            self.build(broken)

    def test_a_capability_is_declared_or_raises(self, vectors: Any) -> None:
        index = self.build(vectors[:2000])
        if Capability.ADD not in self.backend.capabilities:
            with pytest.raises(Unsupported, match=f"{self.backend.name} cannot add"):
                index.add(vectors[2000:2010])
            return
        index.add(vectors[2000:2010])
        rows, _ = index.search(vectors[2000:2010], 1)
        np.testing.assert_array_equal(rows[:, 0], np.arange(2000, 2010))

    def test_a_truncated_file_is_corrupt(self, folder: Path) -> None:
        for path in [p for p in folder.iterdir() if p.name != "backend.json"]:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(CorruptArtifact, match=path.name):
                open_backend(folder)
            path.unlink()
            with pytest.raises(CorruptArtifact, match=path.name):
                open_backend(folder)
            path.write_bytes(whole)
        open_backend(folder)

    def test_garbage_of_the_right_size_is_corrupt(self, folder: Path) -> None:
        for path in [p for p in folder.iterdir() if p.name != "backend.json"]:
            whole = path.read_bytes()
            path.write_bytes(b"\xff" * len(whole))
            with pytest.raises(CorruptArtifact):
                open_backend(folder)
            path.write_bytes(whole)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 99}, "version 99"),
            ({"name": "other"}, "unknown backend"),
            ({"structure": "odd"}, "odd"),
            ({"rows": 7}, "its head says 7"),
            ({"files": 3}, "not the head"),
            ({"surplus": 1}, "not the head"),
        ],
    )
    def test_a_head_that_does_not_fit_is_corrupt(self, folder: Path, change: dict[str, Any], message: str) -> None:
        head = folder / "backend.json"
        head.write_text(json.dumps(json.loads(head.read_text()) | change))
        with pytest.raises(CorruptArtifact, match=message):
            open_backend(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", "\x00\x01"])
    def test_a_head_that_is_no_head_is_corrupt(self, folder: Path, text: str) -> None:
        (folder / "backend.json").write_text(text)
        with pytest.raises(CorruptArtifact, match=r"backend\.json"):
            open_backend(folder)

    def test_a_forked_child_can_search_with_one_thread(self, built: Backend, vectors: Any) -> None:
        expected, _ = built.search(vectors[:64], K, 2)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            rows, _ = built.search(vectors[:64], K, 1)
            os._exit(0 if np.array_equal(rows, expected) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
