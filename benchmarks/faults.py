"""A fleet's site under load while its parts fail, one at a time and in pairs: what callers are told, and how soon.

    python -m benchmarks.faults [--pairs] [--only "redis hung,S3 gone"] [--per-second 60] [--window 10]
        [--part 1/1]

`pymk serve` with two workers, releases on a local S3, live facts and shared cache in Redis; users of all kinds are
asked for at a steady pace and events posted. p99 is of the answers before the fault, of the first seconds after it, and
once breakers are open. Every answer is judged: its status, its rung, and whether it names somebody it must not.
"""

import argparse
import itertools
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.lookup_api.faults.callers import Callers
from tests.lookup_api.faults.faults import BY_NAME, FAULTS, Fault, clashes, sources, stores_events
from tests.lookup_api.faults.site import Site
from tests.lookup_api.faults.traffic import Seen, Traffic
from tests.suites.live_store import guarded_graph, live_artifacts

SETTLE_S = 5.0
"""After a fault began, until breakers are open."""
CALM_S = 3.0
"""Of answers as they should be, after which a site counts as recovered."""
LONGEST_RECOVERY_S = 90.0
SETTINGS = {"api.log_lines": "json", "api.queue_ms": "5000", "ladder.fewer_at": "1", "ladder.no_live_at": "1"}
"""The defaults, but for load: what a machine shared with others takes from a worker is not to be shed here."""


@dataclass(frozen=True)
class Row:
    """One line of the table. Times in milliseconds but recovery_s; unexpected: answers of another rung than allowed."""

    name: str
    answered: int
    not_200: int
    broken: int
    wrong: int
    unexpected: int
    events: str
    sources: str
    healthy_ms: float
    onset_ms: float
    settled_ms: float
    recovery_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="pairs of faults instead of single ones")
    parser.add_argument("--only", default="", help="faults by name, by comma")
    parser.add_argument("--per-second", type=float, default=60.0, help="lists asked for")
    parser.add_argument("--window", type=float, default=10.0, help="seconds measured before and during a fault")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every Nth case, to run as many side by side")
    args = parser.parse_args()
    chosen = [BY_NAME[name] for name in args.only.split(",")] if args.only else list(FAULTS)
    cases: list[tuple[Fault, ...]] = [(fault,) for fault in chosen]
    if args.pairs:
        cases = [pair for pair in itertools.combinations(chosen, 2) if not clashes(pair[0].name, pair[1].name)]
    part, parts = map(int, args.part.split("/"))
    cases = cases[part - 1 :: parts]
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
          f"two workers, {args.per_second:.0f} lists/s, seed 5", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        measure(Path(folder), cases, args.per_second, args.window)


def measure(folder: Path, cases: Sequence[tuple[Fault, ...]], per_s: float, window_s: float) -> None:
    graph = guarded_graph()
    site = Site(folder / "site", graph, live_artifacts(folder / "night", graph), SETTINGS, workers=2)
    (folder / "site").mkdir()
    try:
        callers = Callers(site.start())
        callers.until_as_expected(())
        print(HEAD, flush=True)
        for case in cases:
            print(line(one_case(callers, case, per_s, window_s)), flush=True)
    finally:
        site.stop()


def one_case(callers: Callers, case: tuple[Fault, ...], per_s: float, window_s: float) -> Row:
    site, names = callers.site, [fault.name for fault in case]
    with Traffic(site.caller, callers.known, callers.users, per_s) as traffic:
        time.sleep(window_s)
        began = time.perf_counter()
        for fault in case:
            fault.begin(site)
        if any(fault.restarts for fault in case):
            site.restart_workers()
        settled = time.perf_counter() + SETTLE_S
        time.sleep(SETTLE_S + window_s)
        ended = time.perf_counter()
        for fault in reversed(case):
            fault.end(site)
        over = time.perf_counter()
        recovered = wait_for_calm(traffic, over)
    return row(" + ".join(names), names, traffic, (began, settled, ended, over, recovered))


def wait_for_calm(traffic: Traffic, over: float) -> float:
    """When the last answer came that was not as on a good day."""
    while True:
        now = time.perf_counter()
        bad = [one.at_s for one in list(traffic.seen) if one.at_s > over and not as_expected(one, ())]
        bad += [at for at, _, status in list(traffic.posted) if at > over and status != 202]
        last = max(bad, default=over)
        if now - last > CALM_S or now - over > LONGEST_RECOVERY_S:
            return last
        time.sleep(0.2)


def as_expected(seen: Seen, names: Sequence[str]) -> bool:
    return seen.status == 200 and seen.source in sources(seen.kind, names, seen.cache)


def row(name: str, names: Sequence[str], traffic: Traffic, times: tuple[float, float, float, float, float]) -> Row:
    began, settled, ended, over, recovered = times
    seen = traffic.seen
    during = [one for one in seen if settled <= one.at_s < ended]
    kinds: dict[str, Counter[str]] = {}
    for one in during:
        kinds.setdefault(one.kind, Counter())[one.source] += 1
    statuses = Counter(status for at, _, status in traffic.posted if settled <= at < ended)
    wanted = 202 if stores_events(names) else 503
    told = " ".join(f"{status}x{n}" for status, n in sorted(statuses.items()))
    return Row(
        name=name,
        answered=len(seen),
        not_200=sum(one.status not in (0, 200) for one in seen),
        broken=sum(one.status == 0 for one in seen),
        wrong=sum(bool(one.wrong) for one in seen),
        unexpected=sum(not as_expected(one, names) for one in during),
        events=told + ("" if set(statuses) <= {wanted} else " !"),
        sources=" ".join(f"{kind}:{'/'.join(counts)}" for kind, counts in sorted(kinds.items())),
        healthy_ms=p99(one for one in seen if one.at_s < began),
        onset_ms=p99(one for one in seen if began <= one.at_s < settled),
        settled_ms=p99(during),
        recovery_s=recovered - over,
    )


def p99(seen: Iterable[Seen]) -> float:
    times = [one.ms for one in seen if one.status == 200]
    return float(np.percentile(times, 99)) if times else float("nan")


HEAD = (
    "| fault | lists | not 200 | broken off | excluded shown | other rung | events | p99 healthy, ms | p99 at first "
    "| p99 once open | ratio | well again, s | rungs |\n|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|---|"
)


def line(r: Row) -> str:
    ratio = r.settled_ms / r.healthy_ms
    times = f"{r.healthy_ms:.1f} | {r.onset_ms:.1f} | {r.settled_ms:.1f} | {ratio:.2f} | {r.recovery_s:.1f}"
    return (
        f"| {r.name} | {r.answered} | {r.not_200} | {r.broken} | {r.wrong} | {r.unexpected} | {r.events} "
        f"| {times} | {r.sources} |"
    )


if __name__ == "__main__":
    main()
