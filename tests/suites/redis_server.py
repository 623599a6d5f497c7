"""A real redis-server of a test's own, which the test may stop, kill, hang and start again."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import redis

from tests.suites.frozen import freeze
from tests.suites.ports import free_port, free_ports

PROGRAM = "redis-server"
START_S = 60.0
WHOLE = (b"cluster_state:ok", b"cluster_slots_ok:16384")
"""What a node says that knows of all slots; the first alone may be said without them, where not all must be covered."""


class RedisServer:
    """Listens on a free port of 127.0.0.1 and keeps its files in `folder`; options are those of redis.conf."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = {"save": "", "appendonly": "no", "loglevel": "warning"} | options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        """Returns once it answers."""
        program = shutil.which(PROGRAM)
        if program is None:
            pytest.skip(f"{PROGRAM} is missing: `make setup` installs it where there is apt")
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = [
            part for name, value in self.options.items() for part in (f"--{name.replace('_', '-')}", *value.split(" "))
        ]
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *flags]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_it_answers()
        return self

    def client(self) -> "redis.Redis":
        """A client for what a test looks at behind the back of the code."""
        return redis.Redis(port=self.port, socket_timeout=5)

    def stop(self) -> None:
        """As an operator would; what it holds in memory alone is lost."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash would."""
        self._end(signal.SIGKILL)

    def hang(self) -> None:
        """Connections stay open and nothing answers, until `resume`."""
        freeze(self._running())

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait()

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "start it first"
        return self._process

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self._running().poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.folder / "redis.log").read_text()) from None
                time.sleep(0.01)


class RedisNodes:
    """A Redis Cluster of three primaries."""

    def __init__(self, folder: Path, **options: str) -> None:
        ports = free_ports(3)
        self.nodes = [
            RedisServer(folder / f"{port}", cluster_enabled="yes", cluster_port=str(port), **options) for port in ports
        ]

    @property
    def uri(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> "RedisNodes":
        """Returns once every node knows of all slots."""
        cuts = [0, 5461, 10923, 16384]
        for node, first, last in zip(self.nodes, cuts, cuts[1:], strict=False):
            node.start().client().execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        meeting = self.nodes[0].client()
        for node in self.nodes[1:]:
            meeting.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.options["cluster_port"])
        for node in self.nodes:
            while not all(said in node.client().execute_command("CLUSTER", "INFO") for said in WHOLE):
                time.sleep(0.01)
        return self

    def flush(self) -> None:
        for node in self.nodes:
            node.client().flushall()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
