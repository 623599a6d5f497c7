"""Starting Spark's JVM ends soon, well or with the setting or variable that is wrong."""

import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from pyspark import SparkConf

from infra.errors import PymkError, UsageError
from jobs import spark_jvm

CONF = SparkConf(loadDefaults=False).set("spark.driver.memory", "1g")


def spark_home(folder: Path, script: str) -> Path:
    """A SPARK_HOME whose spark-submit is this shell script."""
    command = folder / "home" / "bin" / "spark-submit"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return folder / "home"


def test_a_jvm_that_never_listens_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "pid"
    monkeypatch.setenv("SPARK_HOME", str(spark_home(tmp_path, f"echo $$ > {told}; exec sleep 600")))
    looks = itertools.count()

    def clock() -> float:
        """Past START_S as soon as the process is at work."""
        return 3.0 if next(looks) and told.exists() and told.read_text() else 0.0

    monkeypatch.setattr(spark_jvm, "START_S", 2.0)
    monkeypatch.setattr(spark_jvm, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    with pytest.raises(PymkError, match=r"did not listen within 2 s.*set TMPDIR to a folder on a larger disk"):
        spark_jvm.launch(CONF, tmp_path)
    assert not psutil.pid_exists(int(told.read_text()))


@pytest.mark.parametrize("code", [0, 1])
def test_a_jvm_that_ends_as_it_starts_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setenv("SPARK_HOME", str(spark_home(tmp_path, f"exit {code}")))
    with pytest.raises(PymkError, match=rf"ended with exit code {code} as it started.*spark.memory \(1g\)"):
        spark_jvm.launch(CONF, tmp_path)


def test_a_spark_home_without_spark_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(PymkError, match=f"SPARK_HOME: {tmp_path} has no bin/spark-submit. Unset SPARK_HOME"):
        spark_jvm.launch(CONF, tmp_path)
    assert "PYSPARK_GATEWAY_PORT" not in os.environ


@pytest.mark.parametrize("memory", ["1m", "511m"])
def test_memory_that_spark_refuses_is_a_wrong_setting(memory: str) -> None:
    with pytest.raises(UsageError, match=f"spark.memory: {memory} is too little.*at least 512m"):
        spark_jvm.require_memory(memory)
    spark_jvm.require_memory("512m")
    spark_jvm.require_memory("1g")


def test_a_full_temporary_folder_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_jvm, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(PymkError, match=r"MiB are free, and Spark needs .* set TMPDIR"):
        spark_jvm.temporary_folder()
