"""API keys: who may do what at the doors of the lookup API. Kept in the store, as hashes, in one file that all read.

A key is `pymk_<key id>_<64 hex digits>`; the digits are 256 random bits, so that a plain SHA-256 of the key cannot be
turned back, and is checked in a microsecond: slow hashes are for secrets that people think of.
"""

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from infra.errors import Conflict, CorruptArtifact, NotFound, StoreError, UsageError
from infra.store import ObjectStore, StoredObject
from infra.times import format_time

log = logging.getLogger(__name__)

FILE = "keys.json"
FILE_VERSION = 1
READ, EVENTS, ADMIN = "read", "events", "admin"
SCOPES = (READ, EVENTS, ADMIN)
"""What a key may be for; none of them contains another."""
PREFIX = "pymk_"
ID_DIGITS, SECRET_DIGITS = 12, 64
LONGEST_NAME = 100
_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ApiKey:
    """All that is kept of a key. sha256: of the whole key, hex. Times: RFC 3339 UTC; None for never."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "ApiKey":
        """Raises ValueError or TypeError for what no key is."""
        key = cls(**values | {"scopes": tuple(values["scopes"])})
        if not _ID.fullmatch(key.key_id) or not _HASH.fullmatch(key.sha256) or not set(key.scopes) <= set(SCOPES):
            raise ValueError(f"key {key.key_id!r} of scopes {key.scopes}")
        for time in (key.created_at, key.expires_at, key.revoked_at):
            if time is not None and datetime.fromisoformat(time).tzinfo is None:
                raise ValueError(f"time {time!r} names no zone")
        return key

    def ends_at(self) -> float:
        """Seconds since 1970 from which the key opens nothing: one that was revoked never does, whatever the clock."""
        if self.revoked_at:
            return float("-inf")
        return datetime.fromisoformat(self.expires_at).timestamp() if self.expires_at else float("inf")


class KeyStore:
    """The keys of a store. Every change is one compare-and-swap of its file."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._where = f"{store.uri}/{FILE}"

    def create(
        self, name: str, scopes: Sequence[str], now: datetime, expires_days: int | None = None
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which is kept nowhere. Raises UsageError for a name or scope that is none."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise UsageError(f"{name!r}: no name of a key", f"Write 1 to {LONGEST_NAME} printable characters.")
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise UsageError(f"{', '.join(unknown) or 'nothing'}: no scope", f"Scopes: {', '.join(SCOPES)}.")
        key_id = secrets.token_hex(ID_DIGITS // 2)
        text = f"{PREFIX}{key_id}_{secrets.token_hex(SECRET_DIGITS // 2)}"
        key = ApiKey(
            key_id=key_id,
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            created_at=format_time(now.replace(microsecond=0)),
            expires_at=_days_later(now, expires_days) if expires_days else None,
        )
        while True:
            stored = self._stored()
            if self._swap(stored, [*self._keys(stored), key]):
                return key, text

    def listed(self) -> list[ApiKey]:
        """Oldest first, with those that were revoked. Raises CorruptArtifact where the file is damaged."""
        return self._keys(self._stored())

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """The key as it is then; one that was revoked before stays as it was. Raises NotFound."""
        while True:
            stored = self._stored()
            keys = self._keys(stored)
            found = next((key for key in keys if key.key_id == key_id), None)
            if found is None:
                raise NotFound(f"{self._store.uri}: no key {key_id!r}", "`pymk key list` shows their ids.")
            revoked = found if found.revoked_at else replace(found, revoked_at=format_time(now))
            if self._swap(stored, [revoked if key is found else key for key in keys]):
                return revoked

    def read(self) -> tuple[list[ApiKey], str | None]:
        """The keys, and the etag of their file, None where there is none."""
        stored = self._stored()
        return self._keys(stored), stored.etag if stored else None

    def _stored(self) -> StoredObject | None:
        try:
            return self._store.get(FILE)
        except NotFound:
            return None

    def _keys(self, stored: StoredObject | None) -> list[ApiKey]:
        return parse_keys(stored.data, self._where) if stored else []

    def _swap(self, stored: StoredObject | None, keys: list[ApiKey]) -> bool:
        if not self._store.conditional_puts:
            what = f"{self._store.uri}: the endpoint ignores conditional puts, so a key could be lost"
            raise StoreError(what, "Use a store that honours If-Match and If-None-Match.")
        data = format_keys(keys)
        try:
            if stored is None:
                self._store.put(FILE, data, if_absent=True)
            else:
                self._store.put(FILE, data, if_match=stored.etag)
        except Conflict:
            return False
        return True


def format_keys(keys: Sequence[ApiKey]) -> bytes:
    """The file of keys."""
    values = {"version": FILE_VERSION, "keys": [asdict(key) for key in keys]}
    return orjson.dumps(values, option=orjson.OPT_INDENT_2)


def parse_keys(data: bytes, where: str) -> list[ApiKey]:
    """Raises CorruptArtifact for bytes that are no file of keys."""
    try:
        values = json.loads(data)
        if values["version"] != FILE_VERSION:
            raise CorruptArtifact(f"{where}: version {values['version']}, this code reads {FILE_VERSION}")
        return [ApiKey.from_values(one) for one in values["keys"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fix = "Put back a copy of the file; without it no key is known."
        raise CorruptArtifact(f"{where}: not a file of keys: {error}", fix) from error


def _days_later(now: datetime, days: int) -> str:
    try:
        return format_time((now + timedelta(days=days)).replace(microsecond=0))
    except OverflowError:
        raise UsageError(
            f"{days} days: beyond the year 9999", "Leave the expiry out for a key that never ends."
        ) from None


def utc_now() -> datetime:
    return datetime.now(UTC)
