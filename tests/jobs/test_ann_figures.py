"""Figures of index backends: what each finds on the same vectors, and what it takes."""

import numpy as np
import pytest

from index.backend import MODULES
from index.sharded import IndexSpec, build_shard, finish
from infra.settings import IndexSettings, Settings
from jobs.ann_figures import compared, figures_of


def unit_vectors(rows: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(rows, 16)) + 2 * draw.normal(size=(20, 16))[draw.integers(0, 20, rows)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_every_backend_is_built_and_measured_as_itself(tmp_path):
    vectors = unit_vectors(3000)
    settings = Settings(index=IndexSettings(recall_queries=200))
    found = {one["backend"]: one for one in compared(vectors, settings, tuple(MODULES), tmp_path)}
    assert list(found) == list(MODULES)
    assert found["exact"]["recall_at_100"] == 1
    for name, one in found.items():
        assert one["recall_at_100"] > 0.9, name
        assert one["bytes"] > vectors.nbytes, name
        assert one["queries_per_s"] > 0
        assert one["queries_per_s_batched"] > 0
    assert [found[name]["structures"] for name in MODULES] == [["flat"], ["hnsw"], ["ivf_pq"], ["tree_ah"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_index_of_nearly_nothing_has_figures(tmp_path, rows):
    vectors, spec = unit_vectors(rows), IndexSpec.from_settings(IndexSettings(backend="exact"), 1)
    for shard in range(spec.shards):
        build_shard(vectors, spec, shard, tmp_path)
    finish(tmp_path, spec)
    found = figures_of(tmp_path, vectors, Settings())
    assert found["recall_at_100"] == 1
    assert (found["queries_per_s"] is None) == (rows == 0)
