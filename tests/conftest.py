"""Fixtures that several rooms share."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from infra.settings import Settings, SparkSettings, load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.pipeline import Pipeline
    from tests.suites.redis_server import RedisNodes, RedisServer


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:PySpark does not yet fully support pandas:FutureWarning")


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """The suite's one Spark session."""
    from jobs.spark import start_session, stop_session

    session = start_session(Settings(spark=SparkSettings(partitions=2)))
    yield session
    stop_session(session)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a local server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket, the environment that leads to it, and a local cache of its own."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYMK_CACHE_DIR": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RedisServer"]:
    """The suite's one Redis. A test that stops or hangs its server starts a RedisServer of its own."""
    from tests.suites.redis_server import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_uri(shared_redis: "RedisServer") -> str:
    """The address of a Redis that holds nothing yet."""
    with shared_redis.client() as client:
        client.flushall()
    return shared_redis.uri


@pytest.fixture(scope="session")
def shared_redis_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RedisNodes"]:
    from tests.suites.redis_server import RedisNodes

    nodes = RedisNodes(tmp_path_factory.mktemp("redis-cluster")).start()
    yield nodes
    nodes.stop()


@pytest.fixture
def redis_cluster_uri(shared_redis_nodes: "RedisNodes") -> str:
    """The address of a Redis Cluster that holds nothing yet."""
    shared_redis_nodes.flush()
    return shared_redis_nodes.uri


SMALL_FLAGS = {"encoder.max_steps": "60", "candidates.per_user": "100", "index.min_recall": "0.9"}
"""Settings that keep a run of the whole path short."""


@dataclass(frozen=True)
class SmallRelease:
    """A published release of a small generated network; shared, so a test may add to its store but not take away."""

    lake: str
    store: str
    as_of: str
    flags: dict[str, str]


def small_pipeline(
    lake: str, store: str, spark: "SparkSession", flags: dict[str, str] | None = None, as_of: str = "2026-01-01"
) -> "Pipeline":
    """A pipeline over the suite's Spark session."""
    from infra.store import open_store
    from infra.times import parse_as_of
    from jobs.pipeline import Pipeline

    settings, _ = load(None, SMALL_FLAGS | (flags or {}), {})
    opened = open_store(store, writable=True, create=True)
    return Pipeline(lake, opened, parse_as_of(as_of), settings, shared_spark=lambda: spark)


@pytest.fixture(scope="session")
def small_release(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    """400 generated users through the whole pipeline."""
    from datetime import date

    from infra.store import open_store
    from jobs.sample import generate

    folder = tmp_path_factory.mktemp("small")
    lake = open_store(str(folder / "lake"), create=True)
    generate(400, lambda key, path: lake.upload(path, key), 17, date(2026, 1, 1))
    with small_pipeline(lake.uri, str(folder / "store"), spark) as pipeline:
        pipeline.run()
    return SmallRelease(lake.uri, str(folder / "store"), "2026-01-01", SMALL_FLAGS)
