"""Blocks run in Spark's Python workers, in order, and fail in plain words."""

import os
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra.errors import GateRefused, PymkError, UsageError
from infra.settings import Settings, SparkSettings
from jobs import spark as spark_module
from jobs.spark import cause_of, fix_of, run_blocks, start_session


def test_answers_come_in_block_order(spark: SparkSession) -> None:
    answers = run_blocks(spark, lambda block: {"block": block, "square": block**2}, 70)
    assert answers == [{"block": b, "square": b**2} for b in range(70)]


def test_no_blocks_need_no_job(spark: SparkSession) -> None:
    assert run_blocks(spark, lambda block: {}, 0) == []


def test_workers_see_the_project_from_any_folder_with_one_math_thread(spark: SparkSession) -> None:
    def look(block: int) -> dict[str, Any]:
        os.chdir("/")
        from jobs import context

        return {"file": context.__file__, "threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}

    answer = run_blocks(spark, look, 1)[0]
    assert Path(answer["file"]).parents[1] == Path(spark_module.__file__).parents[1]
    assert answer["threads"] == "1"
    assert answer["pid"] != os.getpid()


def test_workers_have_the_credentials_of_the_moment(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(block: int) -> dict[str, Any]:
        return {"endpoint": os.environ.get("AWS_ENDPOINT_URL")}

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert run_blocks(spark, look, 1) == [{"endpoint": "http://127.0.0.1:1"}]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert run_blocks(spark, look, 1) == [{"endpoint": None}]


def test_an_exception_names_its_block(spark: SparkSession) -> None:
    def fail(block: int) -> dict[str, Any]:
        return {"ratio": 1 / (3 - block)}

    with pytest.raises(PymkError) as caught:
        run_blocks(spark, fail, 5)
    assert str(caught.value) == "block 3: ZeroDivisionError: division by zero"


def test_a_pymk_error_arrives_as_it_was_raised(spark: SparkSession) -> None:
    def refuse(block: int) -> dict[str, Any]:
        raise GateRefused('recall of "block" fell\nfar', "Look at the report.")

    with pytest.raises(GateRefused) as caught:
        run_blocks(spark, refuse, 1)
    assert (caught.value.what, caught.value.fix) == ('recall of "block" fell\nfar', "Look at the report.")


def test_a_worker_that_dies_is_reported(spark: SparkSession) -> None:
    with pytest.raises(PymkError, match="a Spark Python worker died"):
        run_blocks(spark, lambda block: os._exit(9), 1)


def test_a_second_start_gives_the_same_session(spark: SparkSession) -> None:
    assert start_session(Settings()).sparkContext is spark.sparkContext


def test_missing_java_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(PymkError, match="apt-get install openjdk-17-jre-headless"):
        start_session(Settings())


@pytest.mark.parametrize("master", ["spark://host", "yarn", "k8s://host", "local-cluster[2,1,1024]", "local[0]"])
def test_a_master_that_is_neither_this_machine_nor_a_cluster_is_refused_with_those_that_work(master: str) -> None:
    with pytest.raises(UsageError, match="local\\[N\\]") as caught:
        start_session(Settings(spark=SparkSettings(master=master)))
    assert f"spark.master: '{master}'" in caught.value.what


@pytest.mark.parametrize("master", ["local", "local[1]", "local[16]", "local[*]"])
def test_every_form_of_this_machine_is_a_master(spark: SparkSession, master: str) -> None:
    settings = Settings(spark=SparkSettings(master=master))
    assert start_session(settings).sparkContext is spark.sparkContext, "the one that runs is kept"


def test_a_failure_of_spark_names_its_cause(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.touch(mode=0o600)
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(python))
    with pytest.raises(PymkError) as caught:
        run_blocks(spark, lambda block: {}, 1)
    assert f'Cannot run program "{python}"' in caught.value.what
    assert caught.value.fix == "Spark's Python workers run that program: let this user execute it."


def test_a_python_failure_outside_the_work_is_the_last_line_of_its_traceback() -> None:
    trace = (
        "Traceback (most recent call last):\n  File \"w.py\", line 1\n    load()\nModuleNotFoundError: No module 'x'\n"
    )
    told = f"Job aborted, most recent failure: Lost task 0.0 (TID 0) (h executor driver): a.PythonException: {trace}\n"
    assert cause_of(told + "\tat a.b(C.java:1)\nCaused by: a.E: deeper") == "ModuleNotFoundError: No module 'x'"


def test_without_a_task_the_deepest_cause_is_named_with_its_fix() -> None:
    told = "An error occurred while calling o1.x.\n: a.E: outer\n\tat a.b\nCaused by: a.E: no\n"
    told += "Caused by: java.io.E: No space left on device\n"
    cause = cause_of(told)
    assert cause == "java.io.E: No space left on device"
    assert "set TMPDIR" in fix_of(cause)
