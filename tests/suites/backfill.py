"""Many `pymk` commands at once on one store, some of them killed, and what is seen of the store meanwhile."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.releases import ReleaseStore
from infra.store import open_store

Kill = Callable[[random.Random], float | None]
"""Seconds after which a command is killed, None to let it end."""


def never(chance: random.Random) -> float | None:
    return None


@dataclass
class Backfill:
    """Runs commands, `at_once` of them at a time; one that was killed is run again until it ends by itself.

    kill_at: for each text, the first command that tells it is killed.
    answers: what each printed that ended. kills: how many were killed. made: how often each artifact was made by one
    that ended. moves: releases that CURRENT named, in order.
    """

    store: Path
    at_once: int = 3
    kill: Kill = never
    kill_at: set[str] = field(default_factory=set)
    seed: int = 20260101
    answers: list[dict[str, Any]] = field(default_factory=list)
    kills: int = 0
    made: Counter[str] = field(default_factory=Counter)
    moves: list[str] = field(default_factory=list)
    manifests: dict[Path, bytes] = field(default_factory=dict)

    def run(self, commands: Sequence[list[str]]) -> None:
        self._waiting = list(commands)
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()
        self._failures: list[str] = []
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done,))
        workers = [threading.Thread(target=self._work) for _ in range(self.at_once)]
        watcher.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        done.set()
        watcher.join()
        assert not self._failures, "\n".join(self._failures)

    def _work(self) -> None:
        while not self._failures:
            with self._lock:
                if not self._waiting:
                    return
                command = self._waiting.pop(0)
                after_s = self.kill(self._chance)
            self._once(command, after_s)

    def _once(self, command: list[str], after_s: float | None) -> None:
        with tempfile.TemporaryFile("w+") as printed, tempfile.NamedTemporaryFile("w") as stderr:
            process = subprocess.Popen(command, stdout=printed, stderr=stderr, start_new_session=True)
            told = Path(stderr.name)
            if self._has_to_go(process, told, after_s):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                with self._lock:
                    self.kills += 1
                    self._waiting.append(command)
                return
            printed.seek(0)
            with self._lock:
                if process.returncode:
                    self._failures.append(f"{' '.join(command)}: {process.returncode}\n{told.read_text()[-3000:]}")
                    return
                answer = json.loads(printed.read())
                self.answers.append(answer)
                self.made.update(f"{s['kind']}/{s['artifact_id']}" for s in answer["stages"].values() if not s["found"])

    def _has_to_go(self, process: "subprocess.Popen[bytes]", told: Path, after_s: float | None) -> bool:
        """False once the command has ended by itself."""
        since = time.monotonic()
        while process.poll() is None:
            if after_s is not None and time.monotonic() - since > after_s:
                return True
            with self._lock:
                if here := {text for text in self.kill_at if text in told.read_text()}:
                    self.kill_at -= here
                    return True
            time.sleep(0.02)
        return False

    def _watch(self, done: threading.Event) -> None:
        """Notes every move of CURRENT, and that no finished artifact changes."""
        while not done.is_set():
            self._look()
            time.sleep(0.2)
        self._look()

    def _look(self) -> None:
        try:
            self._see()
        except Exception as error:  # whatever it is, the test must end and tell
            self._failures.append(f"{type(error).__name__}: {error}")

    def _see(self) -> None:
        current = ReleaseStore(open_store(str(self.store))).current_id()
        if current and current != (self.moves or [""])[-1]:
            self.moves.append(current)
        for path in self.store.glob("*/*/manifest.json"):
            content = path.read_bytes()
            if self.manifests.setdefault(path, content) != content:
                self._failures.append(f"{path} changed: it was made twice")


def pymk_run(lake: str, store: Path, as_of: str, flags: dict[str, str], *more: str) -> list[str]:
    command = [sys.executable, "-m", "jobs.cli", "run", "--json", f"--lake={lake}", f"--store={store}"]
    return [*command, f"--as-of={as_of}", *(f"--set={key}={value}" for key, value in flags.items()), *more]


def content_hashes(store: str) -> dict[str, dict[str, str]]:
    """As-of -> kind -> content hash, of all releases; two of one as-of would have to be equal."""
    found: dict[str, dict[str, str]] = {}
    for release in ReleaseStore(open_store(store)).list():
        hashes = {kind: entry.content_hash for kind, entry in release.artifacts.items()}
        assert found.setdefault(release.as_of, hashes) == hashes
    return found
