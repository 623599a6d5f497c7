"""Every backend against the one suite, with its approximate structure even on few rows."""

import pytest

from index.backend import MODULES, backend_named
from index.exact import Exact
from index.faiss_hnsw import FaissHnsw
from index.faiss_ivf_pq import FaissIvfPq
from index.scann_backend import ScannBackend
from infra.errors import UsageError
from infra.settings import IndexSettings
from tests.suites.index_backends import IndexBackendSuite, clustered

SMALL = IndexSettings(exact_below=0, rerank=400)


class TestExact(IndexBackendSuite):
    backend, parameters, large = Exact, Exact.parameters_from(SMALL), "flat"


class TestFaissHnsw(IndexBackendSuite):
    backend, parameters, large = FaissHnsw, FaissHnsw.parameters_from(SMALL), "hnsw"


class TestFaissIvfPq(IndexBackendSuite):
    backend, parameters, large = FaissIvfPq, FaissIvfPq.parameters_from(SMALL), "ivf_pq"


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
