"""Every backend against the one suite, with its approximate structure even on few rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.backend import MODULES, backend_named
from index.exact import Exact
from index.faiss_base import FILE
from index.faiss_hnsw import FaissHnsw
from index.faiss_ivf_pq import FaissIvfPq
from index.recall import recall_at
from index.scann_backend import ScannBackend
from infra.errors import UsageError
from infra.settings import IndexSettings, load
from tests.suites.index_backends import IndexBackendSuite, clustered

SMALL = IndexSettings(exact_below=0, rerank=400)
SMALL_INT8 = IndexSettings(exact_below=0, rerank=400, store="int8")
INT8_ERROR = 5e-3


class TestExact(IndexBackendSuite):
    backend, parameters, large = Exact, Exact.parameters_from(SMALL), "flat"


class TestFaissHnsw(IndexBackendSuite):
    backend, parameters, large = FaissHnsw, FaissHnsw.parameters_from(SMALL), "hnsw"


class TestFaissIvfPq(IndexBackendSuite):
    backend, parameters, large = FaissIvfPq, FaissIvfPq.parameters_from(SMALL), "ivf_pq"


class TestFaissHnswInt8(IndexBackendSuite):
    backend, parameters, large = FaissHnsw, FaissHnsw.parameters_from(SMALL_INT8), "hnsw_int8"
    error = INT8_ERROR


class TestFaissIvfPqInt8(IndexBackendSuite):
    backend, parameters, large = FaissIvfPq, FaissIvfPq.parameters_from(SMALL_INT8), "ivf_pq_int8"
    error = INT8_ERROR


class TestScann(IndexBackendSuite):
    backend, parameters, large = ScannBackend, ScannBackend.parameters_from(SMALL), "tree_ah"


@pytest.mark.parametrize("name", MODULES)
def test_every_backend_of_the_settings_has_a_module(name: str) -> None:
    settings = IndexSettings.model_validate({"backend": name})
    backend = backend_named(settings.backend)
    assert backend.name == name
    assert all(isinstance(value, int | float) for value in backend.parameters_from(settings).values())


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'annoy' is unknown\. Known: exact, hnsw, ivf_pq, scann"):
        backend_named("annoy")


@pytest.mark.parametrize("name", ["ivf_pq", "scann"])
def test_a_trained_backend_searches_few_rows_exactly_and_says_so(name: str) -> None:
    backend = backend_named(name)
    parameters = backend.parameters_from(IndexSettings())
    assert backend.build(clustered(1500, 16, 2), parameters, 1).structure == "flat"


@pytest.mark.parametrize("kind", [FaissHnsw, FaissIvfPq])
def test_int8_keeps_a_byte_a_dimension_and_scores_what_faiss_decodes(kind: Any, tmp_path: Path) -> None:
    vectors = clustered(3000, 64, 2)
    sizes = {}
    for settings in (SMALL, SMALL_INT8):
        index = kind.build(vectors, kind.parameters_from(settings), 1)
        index.save(tmp_path / settings.store)
        sizes[settings.store] = (tmp_path / settings.store / FILE).stat().st_size
    assert sizes["float32"] - sizes["int8"] == pytest.approx(3 * vectors.size, rel=0.01)
    rows, scores = index.search(vectors[:50], 10)
    decoded = index._store().reconstruct_n(0, len(vectors))
    expected = np.einsum("qd,qkd->qk", vectors[:50], decoded[rows])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_where_int8_bounds_recall_the_search_is_not_widened_to_everything() -> None:
    noise = np.random.default_rng(1).standard_normal((3000, 32)).astype(np.float32)
    close = clustered(1, 32, 1) + 0.02 * noise
    close /= np.linalg.norm(close, axis=1, keepdims=True)
    index = FaissHnsw.build(close, FaissHnsw.parameters_from(SMALL_INT8), 1)
    assert 0.9 < recall_at(index, close, np.arange(0, 3000, 30), 100) < SMALL_INT8.target_recall
    assert index.parameters["ef_search"] < 500


@pytest.mark.parametrize("backend", ["exact", "scann"])
def test_a_backend_that_keeps_whole_vectors_refuses_int8_before_a_run(backend: str) -> None:
    with pytest.raises(UsageError, match=rf"index\.store: 'int8'.*{backend} keeps float32 only"):
        load(flags={"index.backend": backend, "index.store": "int8"})
