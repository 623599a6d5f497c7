"""Starts the JVM of Spark's driver: what it needs is looked at first, and the wait for it has an end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.serializers import UTF8Deserializer, read_int

from infra.errors import PymkError, UsageError

START_S = 180.0
"""Seconds the JVM may take until it listens: a few on an idle machine."""

MIN_MEMORY_MB = 512
"""Spark refuses to start with less than 450 MiB of heap that its collector can give it."""

MIN_FREE_BYTES = 64 << 20
"""Room for the files of a session before it holds any row."""

_UNITS = {"m": 1, "g": 1024}


def require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (home and (Path(home) / "bin" / "java").exists()) and shutil.which("java") is None:
        raise PymkError(
            "Spark needs Java 17 or newer, and there is none",
            "Install one, for example `apt-get install openjdk-17-jre-headless`, or set JAVA_HOME.",
        )


def require_memory(memory: str) -> None:
    """memory: `spark.memory`, digits and m or g."""
    if int(memory[:-1]) * _UNITS[memory[-1]] < MIN_MEMORY_MB:
        raise UsageError(f"spark.memory: {memory} is too little for Spark", f"Give at least {MIN_MEMORY_MB}m.")


def spark_submit() -> Path:
    """The command that starts Spark: of SPARK_HOME where that is set, else of the pyspark package."""
    home = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)
    command = home / "bin" / "spark-submit"
    if not command.is_file():
        fix = "Unset SPARK_HOME: the pyspark package brings its own Spark."
        raise PymkError(f"SPARK_HOME: {home} has no bin/spark-submit", fix)
    return command


def temporary_folder() -> Path:
    """A new folder for everything temporary of a session, on a disk that has room."""
    try:
        root = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise PymkError(f"no temporary folder can be written: {error}", fix_space("them")) from None
    free = shutil.disk_usage(root).free
    if free < MIN_FREE_BYTES:
        what = f"{root}: {free >> 20} MiB are free, and Spark needs {MIN_FREE_BYTES >> 20} MiB for temporary files"
        raise PymkError(what, fix_space("it"))
    return Path(tempfile.mkdtemp(prefix="pymk-spark-", dir=root))


def fix_space(where: str) -> str:
    return f"Free space in {where}, or set TMPDIR to a folder on a larger disk."


def launch(conf: SparkConf, folder: Path) -> Any:
    """pyspark's gateway to a new JVM, which writes its port into `folder` when it listens.

    pyspark's own launch waits for ever where the JVM lives on without writing that file, or ends with code 0. Raises
    PymkError where the JVM ends, or does not listen within START_S; it is killed then.
    """
    told = folder / "gateway"
    options = [word for key, value in conf.getAll() for word in ("--conf", f"{key}={value}")]
    process = subprocess.Popen(
        [str(spark_submit()), *options, "pyspark-shell"],
        stdin=subprocess.PIPE,  # the JVM ends when this closes
        stdout=sys.__stderr__,  # our standard output carries nothing but the answer
        env=os.environ | {"SPARK_CONNECT_MODE": "0", "_PYSPARK_DRIVER_CONN_INFO_PATH": str(told)},
        preexec_fn=_ignore_interrupts,
    )
    try:
        _wait(process, told, conf.get("spark.driver.memory"))
        return _connect(process, told)
    except BaseException:
        process.kill()
        process.wait()
        raise


def end(gateway: Any) -> None:
    """Ends the gateway's JVM and forgets it, so that a later session starts its own."""
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
    SparkContext._gateway = SparkContext._jvm = None


def _ignore_interrupts() -> None:
    """Ctrl-C is for Python, which stops the JVM in its own order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wait(process: "subprocess.Popen[bytes]", told: Path, memory: str | None) -> None:
    give_up = time.monotonic() + START_S
    while not told.is_file():
        if process.poll() is not None:
            fix = f"Its message is above. Is there so much memory as spark.memory ({memory}), and Java 17 or newer?"
            raise PymkError(f"Spark's JVM ended with exit code {process.returncode} as it started", fix)
        if time.monotonic() > give_up:
            fix = f"Its message is above, if it had one. {fix_space(str(told.parent.parent))}"
            raise PymkError(f"Spark's JVM did not listen within {START_S:.0f} s", fix)
        time.sleep(0.05)


def _connect(process: "subprocess.Popen[bytes]", told: Path) -> Any:
    with told.open("rb") as file:
        port, secret = read_int(file), UTF8Deserializer().loads(file)  # type: ignore[no-untyped-call]
    told.unlink()
    address = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
    os.environ.update(address)
    try:
        gateway = launch_gateway()  # type: ignore[no-untyped-call]
    finally:
        for name in address:
            del os.environ[name]
    gateway.proc = process
    return gateway
