"""Those who use a site: they know where the list of each user comes from, and whom nobody may be shown."""

import itertools
import time
from collections.abc import Collection

from tests.lookup_api.faults.faults import lacks, releases, sources, stores_events
from tests.lookup_api.faults.site import Site
from tests.lookup_api.faults.traffic import Caller, Known, Seen, event, look, tell

PATIENCE_S = 90.0
NEWCOMER, UNKNOWN = 10**12, 10**13


class Callers:
    """Those who use a site: they know of each user where the list comes from, and whom nobody may be shown."""

    def __init__(self, site: Site) -> None:
        graph = site.graph
        ids = graph.ids.tolist()
        barred = {
            user: frozenset(graph.ids[[*graph.now.connections.row(row), *graph.excluded.row(row)]].tolist())
            for row, user in enumerate(ids)
        }
        self.site, self.known = site, Known(barred)
        self.posted: list[tuple[float, float, int]] = []
        self.users = {"precomputed": [], "live": ids[3:6], "newcomer": [NEWCOMER], "unknown": [UNKNOWN]}
        with site.caller() as caller:
            made = set(ids[0:48:6])
            self._post(caller, [event("connected", NEWCOMER, person) for person in sorted(made)])
            for user in self.users["live"]:
                strangers = [person for person in ids[150:] if person not in barred[user] | made][:5]
                self._post(caller, [event("connected", user, person) for person in strangers])
                made |= set(strangers)
            self.users["precomputed"] = [person for person in ids[20:] if person not in made]
            self._viewers = itertools.cycle(self.users["precomputed"])
            shown = look(caller, self.known, "unknown", UNKNOWN).people
            self._post(caller, [event("deactivated", shown[0]), event("dismissed", UNKNOWN, shown[1])])

    def _post(self, caller: Caller, events: list[dict[str, str]]) -> None:
        end = time.monotonic() + PATIENCE_S
        while tell(caller, self.known, events, self.posted) != 202:
            assert time.monotonic() < end, self.site.log()[-2000:]

    def round(self, caller: Caller, number: int = 0) -> list[Seen]:
        """One list of each kind, each judged: 200, and nobody barred in it."""
        found = []
        for kind, users in self.users.items():
            seen = look(caller, self.known, kind, users[number % len(users)], explain=bool(number % 2))
            assert seen.status == 200, seen
            assert not seen.wrong, seen
            found.append(seen)
        return found

    def until_as_expected(self, faults: Collection[str]) -> None:
        """Rounds, all of them judged, until labels and events are as they must be under these faults."""
        end = time.monotonic() + PATIENCE_S
        with self.site.caller() as caller:
            while found := self._unexpected(caller, faults, 0) + self._unexpected(caller, faults, 1):
                assert time.monotonic() < end, (faults, found, self.site.log()[-2000:])

    def stay_as_expected(self, faults: Collection[str]) -> None:
        with self.site.caller() as caller:
            for number in range(6):
                found = self._unexpected(caller, faults, number)
                assert not found, (faults, found, self.site.log()[-2000:])

    def _unexpected(self, caller: Caller, faults: Collection[str], number: int) -> list[object]:
        seen = self.round(caller, number)
        found: list[object] = [one for one in seen if one.source not in sources(one.kind, faults, one.cache)]
        found += [one for one in seen if (one.source == "none") != (not one.people)]
        found += [one for one in seen if one.release not in releases(self.site, faults)]
        if number % 2:  # then asked with explain, and not of a cache
            found += [one for one in seen if one.kind == "live" and one.degraded != lacks(faults)]
        wanted = 202 if stores_events(faults) else 503
        viewer = next(self._viewers)
        listed = look(caller, self.known, "precomputed", viewer)
        other = listed.people[0] if listed.people else self.users["precomputed"][number]
        status = tell(caller, self.known, [event("blocked", viewer, other)], self.posted)
        assert status in (202, 503), status
        assert not look(caller, self.known, "precomputed", viewer).wrong
        return found + ([("events", status)] if status != wanted else [])
