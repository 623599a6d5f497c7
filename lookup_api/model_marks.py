"""Which models this process scores by at the moment, in files that outlive it: native code that crashes ends a process
without a word, and the process that comes after it, or one beside it, reads here which model it had in hand.

A file a process and model: one byte that counts requests in hand, then who wrote it. A kill from outside at that very
moment looks the same, but not the end of a process that was told to: it forgives first.
"""

import json
import logging
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from infra.process_life import is_gone, this_process
from infra.store import cache_folder
from infra.stored_files import copies_of

log = logging.getLogger(__name__)

MOST = 255


def marks_of(store_uri: str, whose: str) -> Path:
    """Where processes of this machine that serve a store mark what they score by. whose: others have other marks."""
    return cache_folder() / "scoring" / whose / copies_of(store_uri).name


class Mark(Protocol):
    """A block around each request that a model scores. Safe to use from any thread."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _FileMark:
    """Costs a request two bytes of shared memory."""

    def __init__(self, path: Path, process: str, model: str) -> None:
        path.write_bytes(b"\0" + json.dumps([process, model]).encode())
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 1)
        self._in_hand = 0
        self._forgiven = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._add(-1)

    def forgive(self) -> None:
        """Tells of nothing in hand from now on."""
        with self._lock:
            self._forgiven = True
            self._map[0] = 0

    def _add(self, change: int) -> None:
        with self._lock:
            self._in_hand += change
            if not self._forgiven:
                self._map[0] = min(self._in_hand, MOST)


class NoMark:
    """Where no file can be kept."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Marks:
    """folder: of this machine, and of one store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = this_process()
        self._marks: dict[str, _FileMark] = {}
        self._forgiven = False
        _ALL.add(self)

    def of(self, model: str) -> Mark:
        """The mark of a model, `name@version`: one for whoever asks."""
        if model in self._marks:
            return self._marks[model]
        if not self._process or self._forgiven:  # or a system that does not tell which processes are gone
            return NoMark()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{os.getpid()}-{model}"
            path.unlink(missing_ok=True)
            made = self._marks[model] = _FileMark(path, self._process, model)
            if self._forgiven:  # meanwhile
                made.forgive()
            return made
        except (OSError, ValueError) as error:
            log.warning("a crash of model %s will not be known as its own: %s", model, error)
            return NoMark()

    def forgive(self) -> None:
        """Nothing is marked any more, for good."""
        self._forgiven = True
        for mark in list(self._marks.values()):
            mark.forgive()

    def left(self) -> set[str]:
        """Models that processes which are gone had in hand."""
        return {model for _, model in self._left()}

    def taken(self) -> list[str]:
        """The same, one for each such process, which no other is told of then."""
        found = []
        for path, model in list(self._left()):
            with suppress(FileNotFoundError):  # another process was first
                path.unlink()
                found.append(model)
        return found

    def forget(self, *but: str) -> None:
        """Removes what processes that are gone left behind, but for some models."""
        for path, model in list(self._left()):
            if model not in but:
                path.unlink(missing_ok=True)

    def _left(self) -> Iterator[tuple[Path, str]]:
        """Files of gone processes with requests in hand; those without go."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                data = path.read_bytes()
                process, model = json.loads(data[1:])
            except (OSError, ValueError):  # being written, or gone meanwhile
                continue
            if not is_gone(process):
                continue
            if data[0]:
                yield path, model
            else:
                path.unlink(missing_ok=True)


_ALL: "weakref.WeakSet[Marks]" = weakref.WeakSet()


def forgive() -> None:
    """All marks of this process: it is to end, and what it has in hand is cut off."""
    for marks in list(_ALL):
        marks.forgive()
