"""Spark on a cluster: where the driver is found, and proof in every task that it shares the driver's files.

Stages hand tasks paths, of inputs to map and of folders to write to, so that a cluster must share one file system with
the driver under the same paths. A task on a machine that does not would write into a folder that nobody else sees.
Every task therefore looks, before it works, at a file that the driver has made for the session and at one file of each
table of a lake that is a folder.
"""

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PymkError, UsageError
from infra.lake import open_lake
from infra.settings import SparkSettings
from infra.store import ObjectStore, open_store
from infra.store_folder import FolderStore
from jobs.version import VERSION

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CLUSTER = re.compile(r"spark://(?P<host>[^:/,\s]+):(?P<port>\d{1,5})(,[^:/,\s]+:\d{1,5})*")
"""A standalone cluster, with further masters where it has some in reserve."""

WITNESSES = "SPARK_PYMK_WITNESSES"
"""Variable of the Python workers: what they must see, and the version they must be."""


def is_cluster(master: str) -> bool:
    return CLUSTER.fullmatch(master) is not None


def configuration(settings: SparkSettings) -> dict[str, str]:
    """What a driver needs beyond a local one. Raises UsageError where no address here leads to the master."""
    here = own_address(settings.master)
    return {
        "spark.driver.bindAddress": here,
        "spark.driver.host": settings.driver_host or here,
        "spark.executor.memory": settings.executor_memory,
        # A failed task fails the stage, as it does locally; Airflow tries the stage again.
        "spark.task.maxFailures": "1",
        "spark.speculation": "false",
    }


def own_address(master: str) -> str:
    """The address of this machine from which packets to the master leave; nothing is sent."""
    found = CLUSTER.fullmatch(master)
    if not found:
        raise UsageError(f"spark.master: {master!r} is no cluster", "Write spark://host:port.")
    try:
        place = socket.getaddrinfo(found["host"], int(found["port"]), type=socket.SOCK_DGRAM)[0]
        with socket.socket(place[0], socket.SOCK_DGRAM) as probe:
            probe.connect(place[4])
            return str(probe.getsockname()[0])
    except (OSError, OverflowError) as error:
        raise UsageError(f"spark.master: {master}: {error}", "Check the host's name and the network.") from None


class SharedFiles:
    """What every task of a session must see. `show` makes it, `hide` removes it."""

    def __init__(self, store: ObjectStore, lake: str) -> None:
        self._store, self._lake = store, lake
        self._folder: Path | None = None

    def show(self, spark: "SparkSession") -> None:
        """From now on tasks look first. On this machine alone there is nothing to prove."""
        if not is_cluster(spark.sparkContext.master or ""):
            return
        self._folder = self._store.scratch()
        token = self._folder / "token"
        token.write_text(uuid.uuid4().hex)
        seen = [_look(path) for path in (token, *_of_lake(self._lake))]
        spark.sparkContext.environment[WITNESSES] = json.dumps({"version": VERSION, "files": seen})

    def hide(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def require_shared_files(environ: Mapping[str, str] | None = None) -> None:
    """Raises PymkError, naming this host, where it does not see what the driver sees, or runs another pymk."""
    told = (os.environ if environ is None else environ).get(WITNESSES)
    if told is None:
        return
    wanted = json.loads(told)
    host = socket.gethostname()
    if wanted["version"] != VERSION:
        fix = "Install the same version on every machine of the cluster."
        raise PymkError(f"Spark worker {host} runs pymk {VERSION}, the driver {wanted['version']}", fix)
    for known in wanted["files"]:
        try:
            found = _look(Path(known[0]))
        except OSError as error:
            raise PymkError(f"Spark worker {host} does not see {known[0]}: {error.strerror}", FIX) from None
        if found != known:
            raise PymkError(f"Spark worker {host} sees another file {known[0]} than the driver", FIX)


FIX = (
    "Mount the file system of the store (with S3, that of PYMK_CACHE_DIR) and of the lake on every machine of the "
    "cluster under the same path, or set spark.master to local[N]."
)


def _of_lake(lake: str) -> Sequence[Path]:
    """The first file of each table of a lake that is a folder."""
    store = open_store(lake)
    if not isinstance(store, FolderStore):
        return ()
    return [store.open_local(files[0].key) for files in open_lake(lake).tables.values()]


def _look(path: Path) -> list[str | int]:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]
