"""Releases that several files of this room read; a test that changes one makes its own."""

from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import SmallRelease, small_pipeline
from tests.suites.planted import lonely_graph, planted_graph
from tests.suites.small_release import GraphRelease
from tests.suites.small_release import small_release as release_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EVE = "2025-12-31"


@pytest.fixture(scope="session")
def late_eve(small_release: SmallRelease, spark: "SparkSession") -> dict[str, Any]:
    """What a run of the night before the shared release said, which was made into the store after it."""
    with small_pipeline(small_release.lake, small_release.store, spark, as_of=EVE) as pipeline:
        return pipeline.run()


@pytest.fixture(scope="session")
def planted_release(tmp_path_factory: pytest.TempPathFactory) -> GraphRelease:
    graph = planted_graph()
    return GraphRelease(graph, release_of(tmp_path_factory.mktemp("planted"), graph))


@pytest.fixture(scope="session")
def lonely_release(tmp_path_factory: pytest.TempPathFactory) -> GraphRelease:
    graph = lonely_graph()
    return GraphRelease(graph, release_of(tmp_path_factory.mktemp("lonely"), graph))
