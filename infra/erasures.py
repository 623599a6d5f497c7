"""The record of who was erased: one object of the store, `erasures.json`. It outlives live facts and all releases.

Whatever is built reads it, so that an erased person is in nothing new; what serves reads it, so that they are in no
answer of what is old.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

import orjson

from infra.errors import Conflict, CorruptArtifact, NotFound, StoreError, UsageError
from infra.kept_copies import KeptCopy
from infra.store import ObjectStore, StoredObject

KEY = "erasures.json"
VERSION = 1
_ID = re.compile(r"0|-?[1-9][0-9]{0,18}")


def erased_people(store: ObjectStore) -> dict[int, int]:
    """Everyone who was erased -> when, microseconds since 1970. Raises CorruptArtifact for a damaged record."""
    return parse_erasures(_stored(store), f"{store.uri}/{KEY}")


def record_erasure(store: ObjectStore, user_id: int, at_us: int) -> bool:
    """Adds a person to the record; false where they are in it already.

    Raises UsageError for what no id is, StoreError where one record could be lost to another of the same moment.
    """
    refuse_no_id(user_id)
    if not store.conditional_puts:
        what = f"{store.uri}: the endpoint ignores conditional puts, so an erasure could be lost"
        raise StoreError(what, "Use a store that honours If-Match and If-None-Match.")
    while True:
        stored = _stored(store)
        people = parse_erasures(stored, f"{store.uri}/{KEY}")
        if user_id in people:
            return False
        data = _json(people | {user_id: at_us})
        try:
            if stored:
                store.put(KEY, data, if_match=stored.etag)
            else:
                store.put(KEY, data, if_absent=True)
        except Conflict:
            continue
        return True


def refuse_no_id(user_id: int) -> None:
    """Raises UsageError for what no id is."""
    if not _is_id(user_id):
        raise UsageError(f"{user_id}: is not a 64-bit integer", "Ids are from -2^63 to 2^63 - 1.")


def digest_of(people: Iterable[int]) -> str:
    """sha256 that names a set of people, whatever its order."""
    return hashlib.sha256(",".join(map(str, sorted(people))).encode()).hexdigest()


def _stored(store: ObjectStore) -> StoredObject | None:
    try:
        return store.get(KEY)
    except NotFound:
        return None


def parse_erasures(stored: StoredObject | None, where: str) -> dict[int, int]:
    """The people of a record, None for one that is not there. Raises CorruptArtifact."""
    if stored is None:
        return {}
    try:
        values = json.loads(stored.data)
        if values["version"] != VERSION:
            raise CorruptArtifact(f"{where}: version {values['version']}, this code reads {VERSION}")
        people: Mapping[str, int] = values["people"]
        if not all(_ID.fullmatch(person) and _is_id(int(person)) and type(at) is int for person, at in people.items()):
            raise ValueError("its people are no ids with times")
        return {int(person): at for person, at in people.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fix = "Put back a copy of it: without it the erased would be shown again."
        raise CorruptArtifact(f"{where}: not a record of erasures: {error}", fix) from error


def copy_of_record(store_uri: str) -> KeptCopy:
    """What this machine read of a store's record last."""
    return KeptCopy("erasures", store_uri)


def copied_erasures(copy: KeptCopy) -> dict[int, int]:
    """The people of a copy; nobody where there is none that can be read."""
    try:
        data = copy.read()
        return {} if data is None else parse_erasures(StoredObject(data, ""), str(copy.path))
    except (OSError, CorruptArtifact):
        return {}


def _is_id(person: int) -> bool:
    return -(1 << 63) <= person < 1 << 63


def _json(people: Mapping[int, int]) -> bytes:
    values = {"version": VERSION, "people": {str(person): at for person, at in sorted(people.items())}}
    return orjson.dumps(values, option=orjson.OPT_INDENT_2)
