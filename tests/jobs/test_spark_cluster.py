"""A cluster makes what one machine makes, and a worker that does not share the driver's files is refused."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infra.errors import PymkError, UsageError
from infra.releases import ReleaseStore
from infra.settings import SparkSettings
from infra.store import open_store
from jobs import spark_jvm
from jobs.spark_cluster import WITNESSES, configuration, is_cluster, own_address, require_shared_files
from jobs.version import VERSION
from tests.conftest import SMALL_FLAGS, SmallRelease
from tests.suites.ports import free_ports

UP_S = 120.0


@pytest.mark.parametrize("master", ["spark://10.0.0.1:7077", "spark://a:7077,b:7077"])
def test_a_standalone_cluster_is_a_cluster(master: str) -> None:
    assert is_cluster(master)


@pytest.mark.parametrize("master", ["local[2]", "yarn", "spark://", "spark://host:port", "spark://a:1\n"])
def test_nothing_else_is(master: str) -> None:
    assert not is_cluster(master)


def test_the_driver_listens_where_the_master_is_reached_and_no_wider() -> None:
    found = configuration(SparkSettings(master="spark://127.0.0.1:7077", executor_memory="3g"))
    assert (found["spark.driver.bindAddress"], found["spark.driver.host"]) == ("127.0.0.1", "127.0.0.1")
    assert found["spark.executor.memory"] == "3g"
    named = configuration(SparkSettings(master="spark://127.0.0.1:7077", driver_host="driver.example"))
    assert (named["spark.driver.bindAddress"], named["spark.driver.host"]) == ("127.0.0.1", "driver.example")


def test_a_master_that_nobody_knows_is_the_setting_that_is_wrong() -> None:
    with pytest.raises(UsageError, match=r"spark\.master: spark://no\.such\.host\.invalid:7077"):
        own_address("spark://no.such.host.invalid:7077")


def told(version: str, *files: list[str | int]) -> dict[str, str]:
    return {WITNESSES: json.dumps({"version": version, "files": files})}


def test_a_worker_that_sees_the_drivers_files_works(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x")
    require_shared_files({})
    require_shared_files(told(VERSION, [str(file), 1, file.stat().st_mtime_ns]))


def test_a_worker_that_does_not_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(PymkError, match=rf"worker {socket.gethostname()} does not see {file}.*under the same path"):
        require_shared_files(told(VERSION, [str(file), 1, 1]))
    file.write_text("another")
    with pytest.raises(PymkError, match=f"sees another file {file}"):
        require_shared_files(told(VERSION, [str(file), 1, 1]))
    with pytest.raises(PymkError, match=r"runs pymk .* the driver 0\.0\.0"):
        require_shared_files(told("0.0.0"))


@contextmanager
def spark_process(folder: Path, name: str, *words: str) -> Iterator[Path]:
    """A process of Spark's standalone cluster, ended with all it started; its log."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "jobs.process_tree", str(spark_jvm.spark_submit().with_name("spark-class"))]
    environment = os.environ | {"SPARK_WORKER_DIR": str(folder / name), "SPARK_LOCAL_DIRS": str(folder / f"{name}-tmp")}
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, f"org.apache.spark.deploy.{words[0]}", *words[1:]],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait()


def until_said(log: Path, what: str) -> None:
    end = time.monotonic() + UP_S
    while what not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The master of two workers of one core each, on loopback."""
    port, *others = free_ports(6)
    master = f"spark://127.0.0.1:{port}"
    here = ("--host", "127.0.0.1", "--webui-port")
    with ExitStack() as stack:
        ports = iter(others)
        words = ("master.Master", *here, str(next(ports)), "--port", str(port))
        until_said(stack.enter_context(spark_process(tmp_path, "master", *words)), "I have been elected leader")
        for name in ("one", "two"):
            own = (
                "worker.Worker",
                *here,
                str(next(ports)),
                "--port",
                str(next(ports)),
                "--cores",
                "1",
                "--memory",
                "1g",
            )
            log = stack.enter_context(spark_process(tmp_path, name, *own, master))
            until_said(log, "Successfully registered")
        yield master


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_make_the_release_that_one_machine_makes(
    cluster: str, small_release: SmallRelease, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    flags = {**SMALL_FLAGS, "spark.master": cluster, "spark.executor_memory": "512m", "candidates.block": "64"}
    command = [sys.executable, "-m", "jobs.cli", "run", f"--lake={small_release.lake}", f"--store={store}"]
    command += [f"--as-of={small_release.as_of}", *(f"--set={key}={value}" for key, value in flags.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made, wanted = (ReleaseStore(open_store(str(uri))).current() for uri in (store, small_release.store))
    assert made is not None
    assert wanted is not None
    assert {k: e.content_hash for k, e in made.artifacts.items()} == {
        k: e.content_hash for k, e in wanted.artifacts.items()
    }
    for name in ("one", "two"):
        (said,) = (tmp_path / name).glob("app-*/*/stderr")
        assert "Running task" in said.read_text(), f"worker {name} had nothing to do"
