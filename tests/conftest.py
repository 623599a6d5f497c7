"""Fixtures that several rooms share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from infra.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:PySpark does not yet fully support pandas:FutureWarning")


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """The suite's one Spark session."""
    from jobs.spark import start_session, stop_session

    session = start_session(Settings())
    yield session
    stop_session(session)
