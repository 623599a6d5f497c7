"""Everybody who is hidden from all others, in memory, kept up with the file by its changes since the last look."""

import struct
import threading
from collections.abc import Mapping

from infra.live_facts import ERASED
from infra.live_records import RESTRICTING, STATES, hiding_rule
from infra.live_tables import (
    HIDDEN_HEAD,
    HiddenHead,
    Tables,
    Transaction,
    pack_id,
    pack_number,
    unpack_id,
    unpack_number,
)

_STATE = struct.Struct(">Q" + "QB" * len(STATES))
"""Number of the last change; then for each of STATES when it was last changed, and whether it holds."""


class Hidden:
    """people: person -> rule; other threads read it while it follows. head: of the state it has followed last."""

    def __init__(self) -> None:
        self.people: dict[int, str] = {}
        self.head = b""
        self._seen = HiddenHead()
        self._lock = threading.Lock()

    def follow(self, tables: Tables, txn: Transaction) -> None:
        """Takes over what changed since the last look."""
        with self._lock:
            found = tables.hidden_head(txn)
            if found.version < self._seen.version:
                return  # another thread has seen a later state
            if found.erased != self._seen.erased:
                for person, _ in txn.cursor(tables.erased):
                    self.people[unpack_id(person)] = ERASED
            cursor = txn.cursor(tables.changed)
            if cursor.set_range(pack_number(self._seen.changed + 1)):
                for _, person in cursor:
                    self._take(tables, txn, person)
            self._seen = found
            self.head = txn.get(HIDDEN_HEAD, db=tables.meta) or b""

    def _take(self, tables: Tables, txn: Transaction, packed: bytes) -> None:
        person = unpack_id(packed)
        if self.people.get(person) == ERASED:
            return
        state = txn.get(packed, db=tables.people)
        rule = hiding_rule(_STATE.unpack(state)[2::2]) if state else None
        if rule:
            self.people[person] = rule
        else:
            self.people.pop(person, None)


def change_state(tables: Tables, txn: Transaction, number: int, person: int, kind: str, at_us: int) -> None:
    """Merges an event of one person, the number-th of all."""
    place, restricts = RESTRICTING[kind]
    key = pack_id(person)
    found = txn.get(key, db=tables.people)
    values = list(_STATE.unpack(found)) if found else [0] * (1 + 2 * len(STATES))
    if found and (at_us, restricts) <= (values[1 + 2 * place], values[2 + 2 * place]):
        return
    if values[0]:
        txn.delete(pack_number(values[0]), db=tables.changed)
    values[0], values[1 + 2 * place], values[2 + 2 * place] = number, at_us, restricts
    txn.put(key, _STATE.pack(*values), db=tables.people)
    txn.put(pack_number(number), key, db=tables.changed, append=True)
    tables.put_hidden_head(txn, tables.hidden_head(txn)._replace(changed=number))


def forget_state(tables: Tables, txn: Transaction, person: int) -> int:
    """Deletes what is known of a person's state; returns the rows."""
    key = pack_id(person)
    found = txn.get(key, db=tables.people)
    if found is None:
        return 0
    txn.delete(pack_number(unpack_number(found[:8])), db=tables.changed)
    txn.delete(key, db=tables.people)
    return 2


def erased_people(tables: Tables, txn: Transaction) -> Mapping[int, int]:
    return {unpack_id(person): unpack_number(at) for person, at in txn.cursor(tables.erased)}
