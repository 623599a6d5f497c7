"""The run's one Spark session, and a way to run a Python function over numbered blocks of work."""

import atexit
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from infra import errors
from infra.errors import PymkError, UsageError
from infra.settings import Settings
from jobs import spark_cluster, spark_jvm

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[1]
TASKS_PER_CORE = 16
"""Tasks a core gets at most: enough that uneven pieces even out, few enough to start quickly."""

# Pandas only moves a few small frames here, and Spark's own tests run with 3.
warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)

_MATH_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
_LOCAL = re.compile(r"local(\[([1-9]\d*|\*)\])?")
_SHARED = ("AWS_", "PYMK_")
_FAILED = "PYMK-TASK-FAILED"
_FAILURE = re.compile(_FAILED + r" (\{.*\}) END")
_RECENT = re.compile(r"most recent failure: Lost task [^\n]*?executor [^)\n]*\): ([^\n]+)")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t][^\n]*\n)+([^\s][^\n]*)")
_CAUSED = re.compile(r"^Caused by: (.+)$", re.MULTILINE)

# The heavy work is in the Python workers, so that most of the JVM's time would go into its optimising compiler: without
# it a session and its first job take half as long.
_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

_LOGGING = """
status = ERROR
rootLogger.level = error
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = spark %p %c{1}: %m%n%ex{short}
logger.shell.name = org.apache.spark.api.python.PythonGatewayServer
logger.shell.level = error
"""
# A failed task is reported by the exception that the driver raises; these would print its JVM trace a second time.
_SILENCED = (
    "org.apache.spark.executor.Executor",
    "org.apache.spark.scheduler.TaskSetManager",
    "org.apache.spark.util.Utils",
    "org.apache.spark.sql.execution.datasources.v2",
)


def start_session(settings: Settings) -> SparkSession:
    """Starts Spark as the settings say, with everything temporary in a folder that goes when the process ends.

    Python workers use this interpreter, see the project's packages whatever their folder, and have one math thread
    each. Raises PymkError where there is no Java, no room for temporary files or the JVM does not start, UsageError for
    a master that is neither this machine nor a standalone cluster and for too little memory.
    """
    _require_known(settings.spark.master)
    spark_jvm.require_memory(settings.spark.memory)
    spark_jvm.require_java()
    if SparkContext._active_spark_context is None:
        folder = spark_jvm.temporary_folder()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        conf = _configuration(settings, folder)
        os.environ["PYSPARK_PYTHON"] = sys.executable
        gateway = spark_jvm.launch(conf, folder)
        try:
            SparkContext(conf=conf, gateway=gateway)
            return SparkSession.builder.getOrCreate()
        except BaseException as error:
            spark_jvm.end(gateway)
            if isinstance(error, Py4JJavaError):
                raise _readable(str(error)) from None
            raise
    return SparkSession.builder.getOrCreate()


def stop_session(spark: SparkSession) -> None:
    """Stops Spark and its JVM, and so gives back their memory. A later start_session starts anew."""
    gateway = spark.sparkContext._gateway
    try:
        spark.stop()
    except Py4JError:  # the JVM has ended before, as where both were told to
        log.info("Spark's JVM is gone already")
    finally:
        if gateway is not None and getattr(gateway, "proc", None) is not None:
            spark_jvm.end(gateway)


def run_blocks(spark: SparkSession, function: Callable[[int], dict[str, Any]], blocks: int) -> list[dict[str, Any]]:
    """Calls `function(block)` for each block 0 .. blocks-1 in Spark's Python workers; the answers in block order.

    function: picklable; its answer must be small and JSON-able. The first block that raises fails the call: with the
    same PymkError if it raised one, else with a PymkError that names the block and the exception.
    """
    if blocks == 0:
        return []
    _share_environment(spark.sparkContext)

    def call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch.column(0).to_pylist():
                with explained(f"block {block}"):
                    answer = json.dumps(function(block))
                yield pa.RecordBatch.from_pydict({"block": pa.array([block], pa.int64()), "answer": [answer]})

    numbered = spark.range(0, blocks, 1, tasks_for(spark, blocks))
    answers = collect(numbered.mapInArrow(call, "block long, answer string")).sort_by("block")
    return [json.loads(answer) for answer in answers["answer"].to_pylist()]


def tasks_for(spark: SparkSession, pieces: int) -> int:
    """Tasks into which so many pieces of work are cut: one each, or small groups where there are very many."""
    return min(pieces, TASKS_PER_CORE * spark.sparkContext.defaultParallelism)


def collect(frame: DataFrame) -> pa.Table:
    """Runs the job and returns its rows. An error of a task comes out as the PymkError that caused it."""
    try:
        return frame.toArrow()
    except (PySparkException, Py4JJavaError) as error:
        raise _readable(str(error)) from None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Carries an exception out of a Python worker to `collect` in one line; goes around the work of a task.

    On a cluster it first makes sure that the task sees the driver's files.

    what: names the work in the message of an exception that is not a PymkError.
    """
    try:
        spark_cluster.require_shared_files()
        yield
    except PymkError as error:
        raise _failure(type(error).__name__, error.what, error.fix) from error
    except Exception as error:
        raise _failure(PymkError.__name__, f"{what}: {type(error).__name__}: {error}", "") from error


def _failure(kind: str, what: str, fix: str) -> RuntimeError:
    return RuntimeError(f"{_FAILED} {json.dumps({'kind': kind, 'what': what, 'fix': fix})} END")


def _readable(message: str) -> PymkError:
    """The PymkError inside Spark's account of a failed job."""
    found = _FAILURE.search(message)
    if found:
        told = json.loads(found.group(1))
        return getattr(errors, told["kind"], PymkError)(told["what"], told["fix"])
    if "Python worker exited unexpectedly" in message:
        return PymkError(
            "a Spark Python worker died", "Most likely memory ran out: free some, or lower candidates.block."
        )
    cause = cause_of(message)
    return PymkError(f"Spark failed: {cause}", fix_of(cause))


def cause_of(message: str) -> str:
    """The line of Spark's account of a failed job that names what went wrong.

    That is the last line of a Python traceback, else the failure of the task, else the deepest cause.
    """
    if found := _TRACEBACK.search(message):
        return found[1]
    if found := _RECENT.search(message):
        return found[1]
    causes = _CAUSED.findall(message)
    return causes[-1] if causes else message.strip().partition("\n")[0]


def fix_of(cause: str) -> str:
    if "Cannot run program" in cause:
        return "Spark's Python workers run that program: let this user execute it."
    if "OutOfMemoryError" in cause:
        return "Raise spark.memory."
    if "No space left on device" in cause:
        return spark_jvm.fix_space(tempfile.gettempdir())
    return ""


def _share_environment(context: SparkContext) -> None:
    """Gives the workers this process's credentials and folders as they are now, not as they were at Spark's start."""
    kept = {name: value for name, value in context.environment.items() if not name.startswith(_SHARED)}
    shared = {name: value for name, value in os.environ.items() if name.startswith(_SHARED)}
    context.environment = kept | shared


def _require_known(master: str) -> None:
    if not _LOCAL.fullmatch(master) and not spark_cluster.is_cluster(master):
        fix = "Give local, local[N] for N cores of this machine, local[*] for all, or spark://host:port."
        raise UsageError(f"spark.master: {master!r} is neither this machine nor a standalone cluster", fix)


def _configuration(settings: Settings, folder: Path) -> SparkConf:
    logging = folder / "log4j2.properties"
    silenced = [f"logger.s{i}.name = {name}\nlogger.s{i}.level = off" for i, name in enumerate(_SILENCED)]
    logging.write_text(_LOGGING + "\n".join(silenced) + "\n")
    worker_path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    values = {
        "spark.app.name": "pymk",
        "spark.master": settings.spark.master,
        "spark.driver.memory": settings.spark.memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.maxResultSize": "0",
        "spark.driver.extraJavaOptions": f"{_JVM} -Dlog4j2.configurationFile=file:{logging}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.spark.partitions),
        # Plans here are a shuffle or two with sizes known beforehand: re-planning costs more jobs than it saves.
        "spark.sql.adaptive.enabled": "false",
        # Kept rows are read a handful of times within minutes; packing them takes longer than that saves.
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "500000",
        "spark.executorEnv.PYTHONPATH": worker_path,
        **{f"spark.executorEnv.{name}": "1" for name in _MATH_THREADS},
        **(spark_cluster.configuration(settings.spark) if spark_cluster.is_cluster(settings.spark.master) else {}),
    }
    return SparkConf(loadDefaults=False).setAll(list(values.items()))
