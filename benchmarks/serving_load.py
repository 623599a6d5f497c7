"""Ten minutes at a pace that keeps its core busy for 70 % of the time: swaps of releases, events, each answer checked.

    python -m benchmarks.serving_load [--seconds 600] [--load 0.7] [--swap-every 30] [--events 20] [--users 20000]
        [--connections 16] [--folder FOLDER]

One worker on one core; the load is open: requests arrive by chance (Poisson) over kept-alive connections, and latencies
count from when a request was due. The empty route gets the same requests a second on the same core, an eighth of the
time before and as long after. Half of the requests are for a few users, to whom the events happen. Events are due in
the same way, over connections of their own: one that waits for the disk keeps nobody's list waiting in the client.
The pace is found from the CPU time of the same requests, events and swaps, at half of what a closed loop of them gets,
which answers a fifth sooner: it wakes nobody. Before, as many events happen as the ten minutes bring: a list from which
somebody must be left out costs more than one that the night wrote.

Checked of each answer: its status; that its items, as-of and release id are of one release; and that it names nobody
whom an event has barred: of events that were accepted before the request was sent, and of those more than a second ago.
"""

import argparse
import math
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson

from benchmarks.lookup import EMPTY, print_machine
from benchmarks.open_loop import AT_ONCE, Answer, OpenLoop, Request, Seen, get, post
from benchmarks.servers import Server, cores, keep_to_client_cores, served
from benchmarks.serving_rows import TAG, make_release, user_ids
from benchmarks.serving_site import AS_OF, Site, prepare
from infra.releases import Release, ReleaseStore
from infra.request_threads import SPARE
from infra.store import open_store
from jobs.serve import APP

RELEASES = 3
HOT, HOT_SHARE = 500, 0.5
FRESH_S, EARLIER_S = 5.0, 30.0
PACED = 0.5
"""Of what a closed loop gets, where the CPU time of a request is measured."""
BESIDE = 1 / 8
"""Of the time, for the empty route, before and again after."""
TYPES = ("dismissed", "connected", "blocked", "deactivated", "reactivated", "shown", "clicked")
SHARES = (0.4, 0.1, 0.15, 0.05, 0.02, 0.18, 0.1)
JUDGED_AFTER_S = 1.0
"""By then all is known that was accepted before an answer was asked for."""
BOTH_WAYS = ("connected", "blocked")


@dataclass
class Truth:
    """Whom no answer may name, as of when their event was accepted: times of time.perf_counter.

    back: when who was hidden came back.
    """

    barred: dict[int, dict[int, float]] = field(default_factory=dict)
    hidden: dict[int, float] = field(default_factory=dict)
    back: dict[int, str] = field(default_factory=dict)

    def accepted(self, event: dict[str, str], at: float) -> None:
        kind, user = event["type"], int(event["user_id"])
        if kind == "deactivated":
            if event["at"] > self.back.get(user, ""):
                self.hidden.setdefault(user, at)
        elif kind in ("dismissed", *BOTH_WAYS):
            other = int(event["other_id"])
            self.barred.setdefault(user, {}).setdefault(other, at)
            if kind in BOTH_WAYS:
                self.barred.setdefault(other, {}).setdefault(user, at)

    def oldest(self, viewer: int, people: Sequence[int]) -> float | None:
        """When the event was accepted that has barred one of these people the longest; None where none is."""
        own = self.barred.get(viewer, {})
        times = [at for person in people for at in (own.get(person), self.hidden.get(person)) if at is not None]
        if people and viewer in self.hidden:
            times.append(self.hidden[viewer])
        return min(times, default=None)


@dataclass
class Check:
    """What the answers said. named, named_late: answers that named somebody barred before, and over a second before."""

    releases: dict[str, tuple[str, str]]
    truth: Truth = field(default_factory=Truth)
    answers: Seen = field(default_factory=Seen)
    events: Seen = field(default_factory=Seen)
    sources: Counter[str] = field(default_factory=Counter)
    by_release: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    mixed: int = 0
    named: int = 0
    named_late: int = 0
    rejected: int = 0
    listed: dict[int, list[int]] = field(default_factory=dict)
    waiting: deque[tuple[int, list[int], float, float]] = field(default_factory=deque)

    def see_event(self, answer: Answer) -> None:
        self.events.add(answer)
        if answer.status != 202:
            return
        self.rejected += len(orjson.loads(answer.body)["rejected"])
        self.truth.accepted(answer.request.about, answer.done_s)  # type: ignore[arg-type]

    def see_list(self, answer: Answer) -> None:
        """Whom it names is judged a little later, as events come back beside."""
        if answer.status != 200:
            return
        viewer = int(answer.request.about)  # type: ignore[call-overload]
        found = orjson.loads(answer.body)
        people = [int(item["user_id"]) for item in found["items"]]
        self.sources[found["source"]] += 1
        self.degraded += found["degraded"]
        self.by_release[found["release"]] += 1
        self.mixed += not self._whole(found)
        self.listed[viewer] = people
        self.waiting.append((viewer, people, answer.request.sent_s, answer.done_s))
        self.judge(answer.done_s - JUDGED_AFTER_S)

    def judge(self, until_s: float) -> None:
        """Of the answers that came before."""
        while self.waiting and self.waiting[0][3] < until_s:
            viewer, people, sent_s, done_s = self.waiting.popleft()
            barred_at = self.truth.oldest(viewer, people)
            if barred_at is not None:
                self.named += sent_s > barred_at
                self.named_late += done_s > barred_at + 1

    def _whole(self, found: dict) -> bool:
        as_of, tag = self.releases[found["release"]]
        tags = {r["value"] for item in found["items"] for r in item["reasons"] if r.get("attribute") == TAG}
        return tags <= {tag} and found["as_of"] == as_of

    @property
    def failed(self) -> int:
        bad = sum(count for status, count in self.answers.statuses.items() if status != 200)
        return bad + sum(count for status, count in self.events.statuses.items() if status != 202)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--load", type=float, default=0.7, help="share of its time that the server's core works")
    parser.add_argument("--swap-every", type=float, default=30, metavar="S")
    parser.add_argument("--events", type=float, default=20, help="a second")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where tables stay; a temporary one if not given")
    args = parser.parse_args()
    print_machine()
    keep_to_client_cores()
    with tempfile.TemporaryDirectory() as scratch:
        site = prepare((args.folder or Path(scratch)) / f"users-{args.users}", args.users)
        releases = [site.release, *later_releases(site)]
        ReleaseStore(open_store(site.uri)).publish(site.release, force=True)
        core = cores()[0]
        with served(APP, site.environment(l1=True), core=core) as lookup, served(EMPTY, {}, core=core) as empty:
            check = measure(lookup, empty, site, releases, args)
        ReleaseStore(open_store(site.uri)).publish(site.release, force=True)
    sys.exit(bool(check.failed or check.mixed or check.named_late or check.rejected))


def later_releases(site: Site) -> list[Release]:
    store, known = open_store(site.uri), ReleaseStore(open_store(site.uri)).list()
    if len(known) >= RELEASES:
        return [release for release in known if release.release_id != site.release.release_id]
    return [make_release(store, site.users, AS_OF + timedelta(days=n), f"night-{n}", n) for n in range(1, RELEASES)]


def measure(lookup: Server, empty: Server, site: Site, releases: list[Release], args: argparse.Namespace) -> Check:
    tags = ["bench", *(f"night-{n}" for n in range(1, RELEASES))]
    known = {r.release_id: (r.as_of, t) for r, t in zip(sorted(releases, key=lambda r: r.as_of), tags, strict=True)}
    earlier = Check(known)
    fresh = Seen()
    ask(lookup, site, earlier, fresh, AT_ONCE, FRESH_S, args.connections)
    happen(lookup, site, earlier, args.events * args.seconds / EARLIER_S, EARLIER_S)
    closed, paced, seconds = Seen(), Seen(), args.swap_every
    with swaps(site.uri, releases, seconds / 2), events(lookup, site, earlier, args.events, 2 * seconds):
        ask(lookup, site, earlier, closed, AT_ONCE, seconds, args.connections)
        used = lookup.cpu_s()
        ask(lookup, site, earlier, paced, PACED * closed.good_per_s, seconds, args.connections)
        cpu_s = (lookup.cpu_s() - used) / paced.statuses[200]
    check = replace(earlier, answers=Seen(), events=Seen(), sources=Counter(), by_release=Counter(), degraded=0)
    rate = args.load / cpu_s
    if earlier.failed or set(fresh.statuses | closed.statuses | paced.statuses) != {200}:
        sys.exit(f"before: lists {fresh}, {closed}, {paced}; events {earlier.events}")
    print(
        f"{site.users:,} users; closed loop over {args.connections} connections {fresh.good_per_s:,.0f}/s, after "
        f"{earlier.events.statuses[202]:,} events {closed.good_per_s:,.0f}/s; {1e6 * cpu_s:.0f} us of CPU "
        f"time each; load {rate:,.0f}/s",
        flush=True,
    )
    beside = Seen()
    ask(empty, site, Check({}), beside, rate, args.seconds * BESIDE, args.connections)
    with swaps(site.uri, releases, args.swap_every), events(lookup, site, check, args.events, args.seconds):
        ask(lookup, site, check, check.answers, rate, args.seconds, args.connections)
    check.judge(math.inf)
    ask(empty, site, Check({}), beside, rate, args.seconds * BESIDE, args.connections)
    print_report(check, beside)
    return check


def ask(server: Server, site: Site, check: Check, seen: Seen, rate: float, seconds: float, connections: int) -> None:
    """For lists, each of which is checked. An empty route's answers are not."""
    loop, asks = OpenLoop(server.url, connections), Asks(site, check)

    def see(answer: Answer) -> None:
        seen.add(answer)
        if check.releases:
            check.see_list(answer)

    seen.seconds += loop.run(rate, seconds, asks.recommendations, see)
    loop.close()


def happen(server: Server, site: Site, check: Check, rate: float, seconds: float) -> None:
    """Events, from no more callers at once than may wait for the disk."""
    loop = OpenLoop(server.url, SPARE)
    loop.run(rate, seconds, Asks(site, check).event, check.see_event)
    loop.close()


@contextmanager
def events(server: Server, site: Site, check: Check, rate: float, seconds: float) -> Iterator[None]:
    """A block in which events happen, of so many seconds."""
    with ThreadPoolExecutor(1, "events") as beside:
        happened = beside.submit(happen, server, site, check, rate, seconds)
        yield
        happened.result()


@contextmanager
def swaps(uri: str, releases: Sequence[Release], every_s: float) -> Iterator[None]:
    """A block in which CURRENT is swapped, round and round."""
    stop = threading.Event()

    def publish_on() -> None:
        store, number = ReleaseStore(open_store(uri)), 0
        while not stop.wait(every_s):
            number += 1
            store.publish(releases[number % len(releases)], force=True)

    publisher = threading.Thread(target=publish_on)
    publisher.start()
    try:
        yield
    finally:
        stop.set()
        publisher.join()


class Asks:
    """Requests for lists, and of events about people who were just shown."""

    def __init__(self, site: Site, check: Check) -> None:
        self._site, self._check = site, check
        self._draw = np.random.default_rng(17)
        self._ids = user_ids(site.users)
        self._hot = self._draw.choice(self._ids, min(HOT, site.users), replace=False)
        self._ready: list[int] = []
        self._run = f"{time.time_ns():x}"
        self._number = 0

    def recommendations(self) -> Request:
        if not self._ready:
            self._fill()
        user = self._ready.pop()
        return Request(get(f"/v1/users/{user}/recommendations", self._site.key), user)

    def event(self) -> Request:
        event = None
        while event is None:
            event = self._event()
        return Request(post("/v1/events", orjson.dumps({"events": [event]}), self._site.key), event)

    def _fill(self, many: int = 4096) -> None:
        hot = self._draw.random(many) < HOT_SHARE
        self._ready = np.where(hot, self._draw.choice(self._hot, many), self._draw.choice(self._ids, many)).tolist()

    def _event(self) -> dict[str, str] | None:
        kind = str(self._draw.choice(TYPES, p=SHARES))
        if kind == "reactivated":
            return self._named(kind, next(iter(self._check.truth.hidden), None))
        viewer = int(self._draw.choice(self._hot))
        people = self._check.listed.get(viewer)
        if not people:
            return None
        other = people[int(self._draw.integers(len(people)))]
        return self._named(kind, other) if kind == "deactivated" else self._named(kind, viewer, other)

    def _named(self, kind: str, user: int | None, other: int | None = None) -> dict[str, str] | None:
        if user is None:
            return None
        self._number += 1
        event = {"event_id": f"{self._run}-{self._number}", "type": kind, "at": datetime.now(UTC).isoformat()}
        if kind == "reactivated":  # they may be shown from when it is sent on
            self._check.truth.hidden.pop(user)
            self._check.truth.back[user] = event["at"]
        return event | {"user_id": str(user)} | ({} if other is None else {"other_id": str(other)})


def print_report(check: Check, beside: Seen) -> None:
    print(f"lists:       {check.answers}")
    print(f"empty route: {beside}")
    took = np.frombuffer(check.events.refused_ms) if check.events.refused_ms else np.zeros(1)
    quantiles = ", ".join(f"p{q} {np.percentile(took, q):.2f} ms" for q in (50, 99))
    print(
        f"events:      {dict(check.events.statuses)}, {check.rejected} rejected; {quantiles}, max {took.max():.2f} ms"
    )
    print(f"sources {dict(check.sources)}, degraded {check.degraded}; by release {dict(check.by_release)}")
    print(
        f"not 2xx {check.failed}; of two releases {check.mixed}; named somebody whose event was accepted before the "
        f"request was sent: {check.named}, more than a second before the answer: {check.named_late}"
    )


if __name__ == "__main__":
    main()
