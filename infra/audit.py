"""What people did to a store by hand, and why: `{store}/audit/{time}-{action}-….json`, completed when it is done."""

import getpass
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from infra.store import ObjectStore
from infra.times import format_time

FOLDER = "audit"


@dataclass(frozen=True)
class Deed:
    """action: such as rollback. by: the Airflow run, else the user of the machine. done: false where it may not have
    ended. result: what it came to, as JSON values.
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
def recorded(store: ObjectStore, action: str, reason: str | None) -> Iterator[dict[str, Any]]:
    """Records the deed before the block, as one of unknown end, and after it as done, with what the block put into the
    dictionary. A block that raises leaves the first record.
    """
    deed = Deed(action, format_time(datetime.now(UTC)), who(), reason)
    key = f"{deed.key}-{uuid.uuid4().hex[:8]}.json"
    store.put(key, orjson.dumps(asdict(deed), option=orjson.OPT_INDENT_2), if_absent=True)
    result: dict[str, Any] = {}
    yield result
    store.put(key, orjson.dumps(asdict(replace(deed, done=True, result=result)), option=orjson.OPT_INDENT_2))


def who() -> str:
    """PYMK_RUN_ID, which the DAGs set, else the user of this machine."""
    if run := os.environ.get("PYMK_RUN_ID"):
        return run
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def deeds(store: ObjectStore) -> list[Deed]:
    """All that is recorded, oldest first."""
    return [Deed(**orjson.loads(store.get(info.key).data)) for info in store.list(f"{FOLDER}/")]
