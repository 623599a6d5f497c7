"""Ten minutes at 70 % of what the lookup can answer while releases are swapped and events flow, each answer checked.

    python -m benchmarks.serving_load [--seconds 600] [--load 0.7] [--swap-every 30] [--events 20] [--users 20000]
        [--connections 16] [--folder FOLDER]

One worker on one core; the load is open: requests arrive by chance (Poisson) over kept-alive connections, and latencies
count from when a request was due. The empty route gets the same requests a second on the same core, half of the time
before and half after. Half of the requests are for a few users, to whom the events happen, over the same connections.
What it can answer is found in a closed loop of the same requests and events, after as many events as the ten minutes
bring: a list from which somebody must be left out costs more than one that the night wrote.

Checked of each answer: its status; that its items, as-of and release id are of one release; and that it names nobody
whom an event has barred: of events that were accepted before the request was sent, and of those more than a second ago.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
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
PROBE_S, EARLIER_S = 5.0, 30.0
TYPES = ("dismissed", "connected", "blocked", "deactivated", "shown", "clicked")
SHARES = (0.4, 0.1, 0.15, 0.05, 0.2, 0.1)
BOTH_WAYS = ("connected", "blocked")


@dataclass
class Truth:
    """Whom no answer may name, as of when their event was accepted: times of time.perf_counter."""

    barred: dict[int, dict[int, float]] = field(default_factory=dict)
    hidden: dict[int, float] = field(default_factory=dict)

    def accepted(self, event: dict[str, str], at: float) -> None:
        kind, user = event["type"], int(event["user_id"])
        if kind == "deactivated":
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

    def see(self, answer: Answer) -> None:
        about = answer.request.about
        if isinstance(about, dict):
            self._see_event(answer, about)
        else:
            self._see_list(answer, int(about))  # type: ignore[call-overload]

    def _see_event(self, answer: Answer, event: dict[str, str]) -> None:
        self.events.add(answer)
        if answer.status != 202:
            return
        self.rejected += len(orjson.loads(answer.body)["rejected"])
        self.truth.accepted(event, answer.done_s)

    def _see_list(self, answer: Answer, viewer: int) -> None:
        self.answers.add(answer)
        if answer.status != 200:
            return
        found = orjson.loads(answer.body)
        people = [int(item["user_id"]) for item in found["items"]]
        self.sources[found["source"]] += 1
        self.degraded += found["degraded"]
        self.by_release[found["release"]] += 1
        self.mixed += not self._whole(found)
        self.listed[viewer] = people
        barred_at = self.truth.oldest(viewer, people)
        if barred_at is not None:
            self.named += answer.request.sent_s > barred_at
            self.named_late += answer.done_s > barred_at + 1

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
    parser.add_argument("--load", type=float, default=0.7, help="of the requests a second that it can answer")
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
    fresh = probe(lookup, site, earlier, args.connections, 0)
    happen(lookup, site, earlier, args)
    peak = probe(lookup, site, earlier, args.connections, args.events / fresh)
    check = replace(earlier, answers=Seen(), events=Seen(), sources=Counter(), by_release=Counter(), degraded=0)
    rate = args.load * peak
    if earlier.failed:
        sys.exit(f"before: lists {earlier.answers}, events {earlier.events}")
    print(
        f"{site.users:,} users; closed loop over {args.connections} connections {fresh:,.0f}/s, after "
        f"{earlier.events.statuses[202]:,} events {peak:,.0f}/s; load {rate:,.0f}/s",
        flush=True,
    )
    beside = Seen()
    beside.seconds = ask_empty(empty, site, beside, rate, args)
    stop = threading.Event()
    publisher = threading.Thread(target=publish_on, args=(site.uri, releases, args.swap_every, stop))
    publisher.start()
    loop = OpenLoop(lookup.url, args.connections)
    try:
        asks = Mix(site, check, args.events / rate).ask
        check.answers.seconds = check.events.seconds = loop.run(rate, args.seconds, asks, check.see)
    finally:
        stop.set()
        publisher.join()
        loop.close()
    beside.seconds += ask_empty(empty, site, beside, rate, args)
    print_report(check, beside)
    return check


def probe(server: Server, site: Site, check: Check, connections: int, event_share: float) -> float:
    """Requests a second in a closed loop."""
    loop, seen = OpenLoop(server.url, connections), Seen()

    def see(answer: Answer) -> None:
        seen.add(answer)
        check.see(answer)

    seen.seconds = loop.run(AT_ONCE, PROBE_S, Mix(site, check, event_share).ask, see)
    loop.close()
    return seen.good_per_s


def happen(server: Server, site: Site, check: Check, args: argparse.Namespace) -> None:
    """As many events as the run brings, sooner, and from no more callers at once than may wait for the disk."""
    loop = OpenLoop(server.url, min(args.connections, SPARE))
    loop.run(args.events * args.seconds / EARLIER_S, EARLIER_S, Mix(site, check, 1).ask, check.see)
    loop.close()


def ask_empty(server: Server, site: Site, seen: Seen, rate: float, args: argparse.Namespace) -> float:
    loop = OpenLoop(server.url, args.connections)
    taken = loop.run(rate, args.seconds / 2, Mix(site, Check({}), 0).ask, seen.add)
    loop.close()
    return taken


def publish_on(uri: str, releases: Sequence[Release], every_s: float, stop: threading.Event) -> None:
    """Swaps CURRENT, round and round."""
    store, number = ReleaseStore(open_store(uri)), 0
    while not stop.wait(every_s):
        number += 1
        store.publish(releases[number % len(releases)], force=True)


class Mix:
    """Requests for lists, and events about people who were just shown."""

    def __init__(self, site: Site, check: Check, event_share: float) -> None:
        self._site, self._check, self._share = site, check, event_share
        self._draw = np.random.default_rng(17)
        self._ids = user_ids(site.users)
        self._hot = self._draw.choice(self._ids, min(HOT, site.users), replace=False)
        self._ready: list[tuple[int, bool]] = []
        self._run = f"{time.time_ns():x}"
        self._number = 0

    def ask(self) -> Request:
        if not self._ready:
            self._fill()
        user, is_event = self._ready.pop()
        if is_event and (event := self._event()):
            body = orjson.dumps({"events": [event]})
            return Request(post("/v1/events", body, self._site.key), event)
        return Request(get(f"/v1/users/{user}/recommendations", self._site.key), user)

    def _fill(self, many: int = 4096) -> None:
        draw = self._draw
        hot = draw.random(many) < HOT_SHARE
        users = np.where(hot, draw.choice(self._hot, many), draw.choice(self._ids, many))
        self._ready = list(zip(users.tolist(), (draw.random(many) < self._share).tolist(), strict=True))

    def _event(self) -> dict[str, str] | None:
        viewer = int(self._draw.choice(self._hot))
        people = self._check.listed.get(viewer)
        if not people:
            return None
        other = people[int(self._draw.integers(len(people)))]
        kind = str(self._draw.choice(TYPES, p=SHARES))
        self._number += 1
        event = {"event_id": f"{self._run}-{self._number}", "type": kind, "at": datetime.now(UTC).isoformat()}
        if kind == "deactivated":
            return event | {"user_id": str(other)}
        return event | {"user_id": str(viewer), "other_id": str(other)}


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
