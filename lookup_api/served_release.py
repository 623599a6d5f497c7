"""One release, open for reading: its tables, what they hold, and how many requests still use it."""

import logging
import threading
from collections.abc import Sequence
from datetime import datetime

from infra.artifacts import OpenArtifact, open_artifact
from infra.blob_batches import Users, decode_users
from infra.blobs import Ranking, decode_ranking
from infra.errors import CorruptArtifact
from infra.kv import META, RANKINGS, USERS, KeyValueReader
from infra.lmdb_tables import LmdbTables
from infra.overlay_tables import OverlayTables
from infra.releases import Release
from infra.serving_meta import GROUP_RULES_KEY, HEAD_KEY, POPULAR_KEY, ServingHead
from infra.settings import LadderSettings
from infra.store import ObjectStore
from lookup_api.live_parts import DELTA, LiveParts
from lookup_api.ranking.rules import CAPPED, DEPARTED, Bar

log = logging.getLogger(__name__)

SERVING = "serving_tables"


class ServedRelease:
    """Immutable but for its count of users. as_of_s: seconds since 1970; night_s: of the night that it is, or is on.
    popular: the popular list, decoded once.

    group_rules: the cap of each company and school, a byte a group. live: what ranks live, where the release has it.
    departed: who left since the night that a delta is built on, whom other people's rows may still name. files: of this
    machine that its tables are, where what was read once can be read again; none where a host has them.
    """

    def __init__(self, release_id: str, as_of: str, tables: KeyValueReader, live: LiveParts | None = None) -> None:
        self.release_id = release_id
        self.as_of = as_of
        self.as_of_s = self.night_s = datetime.fromisoformat(as_of).timestamp()
        self.tables = tables
        self.head = ServingHead.from_json(tables.get(META, HEAD_KEY))
        self.popular = _popular(tables)
        self.group_rules = tables.get(META, GROUP_RULES_KEY) or b""
        self.live = live
        self.files: list[LmdbTables] = []
        departed = tables.departed if isinstance(tables, OverlayTables) else ()
        self.departed: Bar = dict.fromkeys(departed, DEPARTED)
        self._lock = threading.Lock()
        self._users = 1
        if self.head.caps != CAPPED:
            raise CorruptArtifact(f"{release_id}: caps {self.head.caps}, this code knows {CAPPED}")
        self._warm_up()

    @classmethod
    def open(cls, store: ObjectStore, release: Release, ladder: LadderSettings | None = None) -> "ServedRelease":
        """Verifies the release's serving tables and opens them; with settings of the ladder, what ranks live too.

        Raises NotFound and CorruptArtifact; a release that does not fit together is corrupt.
        """
        nightly = release.base_as_of or release.as_of
        files = [LmdbTables(_opened(store, release, SERVING, nightly).path)]
        tables: KeyValueReader = files[0]
        if release.base is not None:
            tables = _overlaid(store, release, files)
        opened = cls.of(release, tables, ladder)
        opened.files = files
        opened.mend(store)
        return opened

    @classmethod
    def of(cls, release: Release, tables: KeyValueReader, ladder: LadderSettings | None = None) -> "ServedRelease":
        """A release whose tables are open, which it closes; what ranks live is opened by `mend`."""
        try:
            opened = cls(release.release_id, release.as_of, tables, LiveParts(release, ladder) if ladder else None)
        except BaseException:
            tables.close()
            raise
        opened.night_s = datetime.fromisoformat(release.base_as_of or release.as_of).timestamp()
        return opened

    @property
    def ranks_live(self) -> bool:
        """Whether it is meant to, though its ranking model may be missing for a while: that is a failure of a rung."""
        return self.live is not None and self.live.has_model

    def users(self, ids: Sequence[int]) -> Users:
        """What is stored of people, in one batched read."""
        head = self.head
        blobs = self.tables.get_many(USERS, ids)
        return decode_users(blobs, len(head.user_features), len(head.attributes), head.embedding_dimensions)

    @property
    def mapped(self) -> bool:
        return bool(self.files)

    def keep_in_memory(self) -> None:
        """Locks the pages of its files until it is closed. Raises NotLocked and OSError; what is locked stays so."""
        for tables in self.files:
            tables.keep_in_memory()

    @property
    def locked_bytes(self) -> int:
        """Of its files, those locked in memory."""
        return sum(tables.locked_bytes for tables in self.files)

    def take(self) -> bool:
        """Counts one more user; false when the release was closed already."""
        with self._lock:
            if self._users == 0:
                return False
            self._users += 1
            return True

    def give_back(self) -> None:
        """One user less; the last one closes the tables."""
        with self._lock:
            self._users -= 1
            closing = self._users == 0
        if closing:
            self.tables.close()
            if self.live is not None:
                self.live.close()
            log.info("closed release %s", self.release_id)

    def mend(self, store: ObjectStore) -> None:
        """Tries again what could not be opened."""
        if self.live is not None:
            self.live.mend(store)

    def _warm_up(self) -> None:
        """Reads what every request reads, and checks that there are as many rankings as users."""
        found = self.tables.count(RANKINGS)
        if found != self.head.users:
            raise CorruptArtifact(f"{self.release_id}: {found} rankings for {self.head.users} users")
        self.tables.get_many(RANKINGS, self.popular.ids())


def _opened(store: ObjectStore, release: Release, kind: str, as_of: str) -> OpenArtifact:
    """An artifact that the release names, verified. Raises NotFound and CorruptArtifact."""
    entry = release.artifacts.get(kind)
    if entry is None:
        raise CorruptArtifact(f"{release.release_id}: has no {kind}", "Publish a whole release.")
    artifact = open_artifact(store, kind, entry.artifact_id)
    if artifact.manifest.content_hash != entry.content_hash or artifact.manifest.as_of != as_of:
        raise CorruptArtifact(f"{release.release_id}: {entry.path} is not the artifact the release was made of")
    return artifact


def _overlaid(store: ObjectStore, release: Release, files: list[LmdbTables]) -> KeyValueReader:
    """The rows of a delta, whose file it adds, over those of its base, which is closed where that fails."""
    [base] = files
    try:
        delta = LmdbTables(_opened(store, release, DELTA, release.as_of).path)
        files.append(delta)
        try:
            return OverlayTables(delta, base)
        except BaseException:
            delta.close()
            raise
    except BaseException:
        base.close()
        raise


def _popular(tables: KeyValueReader) -> Ranking:
    blob = tables.get(META, POPULAR_KEY)
    if blob is None:
        raise CorruptArtifact("serving tables: the popular list is missing", "Verify the release.")
    return decode_ranking(blob)
