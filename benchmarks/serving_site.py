"""A store as one in service: generated tables, API keys, limits, and live facts of some of the users."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.serving_rows import publish, user_ids
from infra.artifacts import open_artifact
from infra.blobs import decode_ranking
from infra.events import Event
from infra.keys import EVENTS, READ, KeyStore
from infra.kv import RANKINGS
from infra.live_facts import facts_uri, open_live_facts
from infra.lmdb_tables import LmdbTables
from infra.releases import Release, ReleaseStore
from infra.settings import ApiSettings, LadderSettings, Settings
from infra.store import open_store
from jobs.serve import worker_environment
from lookup_api.served_release import SERVING

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
KEY_PER_S, USER_PER_S = 1_000_000, 10_000
"""Limits that are kept but never reached."""
WITH_FACTS, MOST_WITH_FACTS, HIDDEN = 10, 100_000, 1000
"""One user in so many has live facts of five people on the own list; one in so many is deactivated."""
RULES = ("dismissed", "dismissed", "dismissed", "blocked", "connected")
BATCH = 1000


@dataclass(frozen=True)
class Site:
    """uri: of the store. key: an API key for everything that is asked here."""

    uri: str
    users: int
    key: str
    release: Release

    def environment(self, l1: bool) -> dict[str, str]:
        """Of a worker that asks for keys, keeps limits and has its tables in memory. l1: whether it keeps answers."""
        return worker_environment(self.uri, in_service(l1, lock_tables=True))


def in_service(l1: bool, lock_tables: bool = False) -> Settings:
    ladder = LadderSettings() if l1 else LadderSettings(l1_mib=0)
    api = ApiSettings(key_per_s=KEY_PER_S, user_per_s=USER_PER_S, lock_tables=lock_tables)
    return Settings(api=api, ladder=ladder)


def prepare(folder: Path, users: int) -> Site:
    """Writes what is missing in `folder`: a second run finds the tables and the facts of the first."""
    store = open_store(str(folder), create=True)
    release = ReleaseStore(store).current() or publish(store, users, AS_OF, "bench")
    settings = in_service(False)
    if not (folder / "live").exists():
        facts = open_live_facts(facts_uri(settings, str(folder)), settings)
        for batch in happened(
            LmdbTables(open_artifact(store, SERVING, release.artifacts[SERVING].artifact_id).path), users
        ):
            facts.record(batch)
        facts.close()
    _, key = KeyStore(store).create("benchmark", (READ, EVENTS), datetime.now(UTC))
    return Site(str(folder), users, key, release)


def happened(tables: LmdbTables, users: int) -> Iterator[list[Event]]:
    """Events of everybody who has any, some at a time."""
    draw = np.random.default_rng([users, 3])
    ids, at_us = user_ids(users), int(datetime.now(UTC).timestamp() * 1e6)
    gone = draw.choice(ids, users // HIDDEN, replace=False).tolist()
    viewers = draw.choice(ids, min(users // WITH_FACTS, MOST_WITH_FACTS), replace=False).tolist()
    yield [Event(f"hidden-{person}", "deactivated", person, None, at_us) for person in gone]
    for start in range(0, len(viewers), BATCH // len(RULES)):
        yield [
            Event(f"{viewer}-{other}", rule, viewer, other, at_us)
            for viewer in viewers[start : start + BATCH // len(RULES)]
            for rule, other in zip(RULES, listed(tables, viewer), strict=False)
        ]


def listed(tables: LmdbTables, viewer: int) -> list[int]:
    blob = tables.get(RANKINGS, viewer)
    return decode_ranking(blob).ids() if blob else []
