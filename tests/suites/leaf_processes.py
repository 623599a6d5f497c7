"""`pymk leaf` as a process on a free port of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
from prometheus_client import CollectorRegistry

from infra.serving_settings import LeafSettings
from infra.store import ObjectStore
from lookup_api.leaves import wire
from lookup_api.leaves.leaf_metrics import SenderMetrics
from lookup_api.leaves.remote_leaf import RemoteLeaf
from tests.suites.leaf_models import breaker
from tests.suites.ports import free_ports


class LeafProcess:
    """One leaf. address: host:port, the same when it is started anew."""

    def __init__(self, store_uri: str, *settings: str) -> None:
        port, self.metrics_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "jobs.cli", "leaf", f"--store={store_uri}", f"--port={port}"]
        self._command += [f"--metrics-port={self.metrics_port}"]
        self._command += [f"--set={one}" for one in settings]
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(self._command, env=environment)

    def wait_until_ready(self) -> None:
        while self.process.poll() is None:
            with suppress(pa.ArrowException), flight.FlightClient(f"grpc://{self.address}") as client:
                list(client.do_action(flight.Action(wire.HEALTH, b""), flight.FlightCallOptions(timeout=5.0)))
                return
            time.sleep(0.02)
        raise AssertionError(f"the leaf ended with {self.process.returncode}")

    def told(self, action: str) -> bytes:
        """What it answers to an action without a body."""
        with flight.FlightClient(f"grpc://{self.address}") as client:
            (result,) = client.do_action(flight.Action(action, b""), flight.FlightCallOptions(timeout=60.0))
            return bytes(result.body.to_pybytes())

    def metrics(self) -> dict[str, float]:
        """By name and labels, as they are printed."""
        lines = (line.rsplit(" ", 1) for line in self.told(wire.METRICS).decode().splitlines() if line[0] != "#")
        return {name: float(value) for name, value in lines}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


@contextmanager
def leaves(
    store: ObjectStore, count: int = 1, *settings: str, kind: type[LeafProcess] = LeafProcess
) -> Iterator[list[LeafProcess]]:
    """So many leaves of a store, ready."""
    started = [kind(store.uri, *settings) for _ in range(count)]
    try:
        for leaf in started:
            leaf.wait_until_ready()
        yield started
    finally:
        for leaf in started:
            leaf.kill()


def remote_to(address: str, spare: bool = False, **settings: Any) -> RemoteLeaf:
    values = LeafSettings(**{"timeout_ms": 60_000} | settings)
    return RemoteLeaf(address, values, SenderMetrics(CollectorRegistry()), breaker(address), spare)
