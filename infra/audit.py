"""What people did to a store by hand, and why: `{store}/audit/{time}-{action}-….json`, completed when it is done.

It is what a task that is tried again knows of its first try: what was intended is kept before anything is done.
"""

import getpass
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from infra.errors import CorruptArtifact
from infra.store import ObjectStore
from infra.times import format_time

FOLDER = "audit"
RUN = "PYMK_RUN_ID"
_KEY = re.compile(rf"{FOLDER}/[0-9TZ.-]+?Z-(?P<action>[a-z-]+)-[0-9a-f]{{8}}\.json")
"""Of the record of a deed."""


@dataclass(frozen=True)
class Deed:
    """action: such as rollback. by: the Airflow run, else the user of the machine. done: false where it may not have
    ended. result: what it came to, or was to come to where it may not have ended, as JSON values.
    """

    action: str
    at: str
    by: str
    reason: str | None
    done: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{FOLDER}/{self.at.replace(':', '')}-{self.action}"


@contextmanager
def recorded(
    store: ObjectStore, action: str, reason: str | None, intended: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Records the deed before the block, as one of unknown end, and after it as done, with what the block put into the
    dictionary, which begins as what is intended. A block that raises leaves the first record.
    """
    deed = Deed(action, format_time(datetime.now(UTC)), who(), reason, result=dict(intended or {}))
    key = f"{deed.key}-{uuid.uuid4().hex[:8]}.json"
    store.put(key, orjson.dumps(asdict(deed), option=orjson.OPT_INDENT_2), if_absent=True)
    result = dict(deed.result)
    yield result
    store.put(key, orjson.dumps(asdict(replace(deed, done=True, result=result)), option=orjson.OPT_INDENT_2))


def who() -> str:
    """PYMK_RUN_ID, which the DAGs set, else the user of this machine."""
    if run := os.environ.get(RUN):
        return run
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def deeds(store: ObjectStore, action: str = "") -> list[Deed]:
    """All that is recorded, or all of one action, oldest first; other files of the folder are nobody's deeds. Raises
    CorruptArtifact for a record that cannot be read."""
    matched = ((info.key, _KEY.fullmatch(info.key)) for info in store.list(f"{FOLDER}/"))
    keys = [key for key, match in matched if match and action in ("", match["action"])]
    return [_read(store, key) for key in keys]


def _read(store: ObjectStore, key: str) -> Deed:
    try:
        return Deed(**orjson.loads(store.get(key).data))
    except (ValueError, TypeError) as error:
        fix = "Put back a copy of the file, or move it elsewhere: what it tells of is not known then."
        raise CorruptArtifact(f"{store.uri}/{key}: not a record of a deed: {error}", fix) from error


def tries(store: ObjectStore, action: str) -> list[Deed]:
    """What this run of the scheduler, whose task is tried again or cleared, did of that before, first to last."""
    run = os.environ.get(RUN)
    return [deed for deed in deeds(store, action) if deed.by == run] if run else []
