"""A fleet's site, all of it real: `pymk serve`, releases on a server that speaks S3, live facts and cache in Redis."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import boto3
import psutil
from moto.server import ThreadedMotoServer

from infra.graph import Graph
from infra.keys import SCOPES, KeyStore, utc_now
from infra.releases import Release
from infra.store import ObjectStore, open_store
from jobs.context import Parent
from tests.lookup_api.faults.faulty_app import FOLDER
from tests.lookup_api.faults.traffic import Caller
from tests.lookup_api.faults.wire import Wire
from tests.suites.live_store import publish_live
from tests.suites.ports import free_port
from tests.suites.redis_server import RedisServer
from tests.suites.small_release import AS_OF

logging.getLogger("werkzeug").setLevel(logging.ERROR)

ROOT = Path(__file__).parents[3]
BUCKET = "faults"
START_S = 120.0
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory_policy": "noeviction"}
PATIENT = {
    "ladder.deadline_ms": "60000", "ladder.live_budget_ms": "30000", "ladder.ann_budget_ms": "30000",
    "ladder.l2_timeout_ms": "500", "events.redis_timeout_ms": "1000", "ladder.breaker_wait_s": "0.1",
    "api.poll_s": "0.2", "api.queue_ms": "60000", "ladder.fewer_at": "1", "ladder.no_live_at": "1",
}  # fmt: skip
"""A busy machine fails no test: for those who judge labels. Who judges times takes the defaults."""


class Site:
    """earlier, newest: its two releases, newest served. `start` and `stop` it."""

    def __init__(
        self, folder: Path, graph: Graph, made: Mapping[str, Parent], settings: Mapping[str, str], workers: int = 1
    ) -> None:
        self.folder, self.graph, self._made, self._settings = folder, graph, made, settings
        self._workers = workers
        self.switches = folder / "switches"
        self.redis = RedisServer(folder / "redis", **DURABLE)
        self.cache = folder / "cache"
        self.store_uri = f"s3://{BUCKET}/store"

    def start(self) -> "Site":
        self.switches.mkdir()
        self.redis.start()
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self.wire = Wire(self._moto.get_host_and_port()[1])
        self._direct = self._environment(self._moto.get_host_and_port()[1])
        os.environ.update(self._direct)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        self.store: ObjectStore = open_store(self.store_uri, writable=True)
        self.key = KeyStore(self.store).create("callers", SCOPES, utc_now())[1]
        self.earlier = self.publish(0)
        self.newest = self.publish(1)
        self._serve()
        return self

    def publish(self, day: int) -> Release:
        return publish_live(self.store, self._made, AS_OF + timedelta(days=day))

    def caller(self) -> Caller:
        return Caller(self.port, self.key)

    def workers(self) -> list[int]:
        return sorted(child.pid for child in psutil.Process(self._server.pid).children() if _answers(child))

    def restart_workers(self) -> None:
        """Kills them one after the other; the server starts others in their place."""
        for pid in self.workers():
            before = set(self.workers())
            os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + START_S
            while not any(self._serves(new) for new in set(self.workers()) - before):
                assert time.monotonic() < end, self.log()
                time.sleep(0.05)
        self.wait_until_ready()

    def _serves(self, pid: int) -> bool:
        """Whether a worker has said that it serves a release."""
        lines = (self.folder / "server.log").read_text().splitlines()
        return any("serving release" in line and f'"process":{pid},' in line for line in lines)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                with self.caller() as caller:
                    if caller.get("/readyz")[0] == 200:
                        return
            except OSError:
                pass
            assert time.monotonic() < end, self.log()
            assert self._server.poll() is None, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()[-20_000:]

    def stop(self) -> None:
        self.redis.stop()
        self._server.terminate()
        try:
            self._server.wait(30)
        finally:
            for process in psutil.Process(self._server.pid).children() if self._server.poll() is None else []:
                process.kill()
            self._server.kill()
        self.wire.cut()
        self._moto.stop()

    def _serve(self) -> None:
        self.port = free_port()
        flags = {"api.facts": self.redis.uri, "ladder.l2": self.redis.uri, "ladder.l1_mib": "0"} | dict(self._settings)
        command = [sys.executable, "-m", "tests.lookup_api.faults.faulty_app", "serve", f"--store={self.store_uri}"]
        command += [f"--port={self.port}", f"--workers={self._workers}"]
        command += [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]
        environment = os.environ | self._environment(self.wire.port) | {FOLDER: str(self.switches)}
        environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir()}
        log = (self.folder / "server.log").open("ab")
        self._server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.wait_until_ready()

    def _environment(self, s3_port: int) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYMK_CACHE_DIR": str(self.cache),
        }


def _answers(process: psutil.Process) -> bool:
    """Whether it is a worker, and not a helper of multiprocessing."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "tracker" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
