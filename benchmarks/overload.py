"""What the lookup still answers when it is asked for more than it can, in an open loop, and what turning away costs.

    python -m benchmarks.overload [--users 20000] [--seconds 15] [--connections 1000] [--folder FOLDER]

One worker on one core, asked by chance (Poisson) over many connections, each case after a rest. Goodput: answers of 200
a second within 250 ms of when they were due; latencies count from then. Peak: the most goodput at any pace, found by
asking for more and more, from half of what it answers in a closed loop. Then so many times the peak; last, half of it
right after three times it, piece by piece. The client has a core of its own; how much of it it was busy and how late it
sent stands beside: where it is late, nothing is measured.
"""

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from benchmarks.lookup import print_machine
from benchmarks.open_loop import AT_ONCE, Answer, OpenLoop, Request, Seen, arrivals, get
from benchmarks.servers import Server, cores, keep_to_client_cores, served
from benchmarks.serving_rows import user_ids
from benchmarks.serving_site import Site, in_service, prepare
from jobs.serve import APP
from lookup_api.app import create_app
from lookup_api.door import Door, Environ

LOADS = (1.0, 1.5, 3.0)
CLOSED = 64
RISING = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Of what it answers in a closed loop."""
GOOD_MS = 250.0
REST_S = 2.0
AFTER = 0.5
UNTIL_S = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
"""Ends of the pieces of what came after overload."""
CALLS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where tables stay; a temporary one if not given")
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as scratch:
        site = prepare((args.folder or Path(scratch)) / f"users-{args.users}", args.users)
        print_cost(site)
        keep_to_client_cores()
        with served(APP, site.environment(l1=False), core=cores()[0]) as server:
            measure(server, site, args.seconds, args.connections)


def measure(server: Server, site: Site, seconds: float, connections: int) -> None:
    asks = asker(site)
    run(server, asks, CLOSED, AT_ONCE, 2)
    closed = run(server, asks, CLOSED, AT_ONCE, seconds / 2).good_per_s
    print(f"\nclosed loop of {CLOSED} connections: {closed:,.0f} answers a second; then {connections:,} connections")
    rising = []
    for share in RISING:
        time.sleep(REST_S)
        rising.append(run(server, asks, connections, share * closed, seconds / 2))
    peak = max(seen.within(GOOD_MS) for seen in rising)
    print(f"peak: goodput of {peak:,.0f} a second")
    print(
        f"{'asked':>14} {'goodput':>8} {'of peak':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} "
        f"{'turned away':>12} {'p99 ms':>8} {'client busy':>12} {'late p50':>8} {'late p99':>8}"
    )
    for share, seen in zip(RISING, rising, strict=True):
        print_line(f"{share * closed:,.0f}/s", seen, peak)
    for load in LOADS:
        time.sleep(REST_S)
        print_line(f"{load:.1f} x peak", run(server, asks, connections, load * peak, seconds), peak)
    print_recovery(server, asks, connections, peak, seconds)


def asker(site: Site) -> Callable[[], Request]:
    """Uniform users, without end."""
    draw, ids = np.random.default_rng(17), user_ids(site.users)
    ready: list[bytes] = []

    def ask() -> Request:
        if not ready:
            ready.extend(get(f"/v1/users/{user}/recommendations", site.key) for user in draw.choice(ids, 4096).tolist())
        return Request(ready.pop())

    return ask


def run(server: Server, asks: Callable[[], Request], connections: int, rate: float, seconds: float) -> Seen:
    """What came of it, by the time in which requests were due."""
    loop, seen = OpenLoop(server.url, connections), Seen(seconds=seconds)
    loop.run(rate, seconds, asks, seen.add)
    seen.busy = loop.busy
    loop.close()
    return seen


def print_line(name: str, seen: Seen, peak: float) -> None:
    good, found = seen.within(GOOD_MS), seen.latency()
    away = np.percentile(np.frombuffer(seen.refused_ms), 99) if seen.refused_ms else 0.0
    late = np.percentile(np.frombuffer(seen.late_ms), [50, 99])
    statuses = "" if set(seen.statuses) <= {200, 503} else f"  {dict(seen.statuses)}"
    print(
        f"{name:>14} {good:8,.0f} {good / peak:7.2f} {found['p50']:8.2f} {found['p99']:8.2f} {found['max']:8.2f} "
        f"{len(seen.refused_ms) / seen.seconds:10,.0f}/s {away:8.2f} {seen.busy:12.2f} {late[0]:8.2f} {late[1]:8.2f}"
        f"{statuses}",
        flush=True,
    )


def print_recovery(server: Server, asks: Callable[[], Request], connections: int, peak: float, seconds: float) -> None:
    """Three times the peak, and without a pause half of it: what became of those due in each piece of time after."""
    loop, answers, before = OpenLoop(server.url, connections), deque[Answer](), seconds / 2
    half = (before + at for at in arrivals(AFTER * peak, UNTIL_S[-1], seed=18))
    start = time.perf_counter()
    loop.run_at(chain(arrivals(3 * peak, before), half), asks, answers.append)
    loop.close()
    print(f"\n{AFTER} x peak right after {before:.0f} s of 3 x peak, by when requests were due")
    ends = [before + until for until in UNTIL_S]
    for begin, end in pairwise([0.0, before, *ends]):
        seen = Seen(seconds=end - begin)
        for answer in answers:
            if begin <= answer.request.due_s - start < end:
                seen.add(answer)
        print_line(f"to {end - before:.1f} s" if begin else "3 x peak", seen, peak)


class Shut:
    """In place of the queue, for as long as everything is turned away."""

    def enter(self, environ: Environ) -> bool:
        return False


def print_cost(site: Site) -> None:
    """Of the wrapper alone, in this process: what it adds to an answer, and a request that it turns away."""
    app = create_app(site.uri, in_service(False))
    door = app.wsgi_app
    assert isinstance(door, Door)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/v1/users/{user_ids(1)[0]}/recommendations",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_AUTHORIZATION": f"Bearer {site.key}",
    }

    def start_response(line: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        return bytes

    def asked() -> None:
        b"".join(app.wsgi_app(dict(environ), start_response))

    def let_through() -> None:
        door.queue.enter(environ)

    print(f"\nan answer: {cost_us(asked):.0f} us of the whole application; {cost_us(let_through):.1f} us of the queue")
    door.queue = Shut()  # type: ignore[assignment]
    print(f"turned away: {cost_us(asked):.1f} us")
    app.extensions["pymk"].stop()


def cost_us(call: Callable[[], None], rounds: int = 5) -> float:
    """CPU microseconds, the least of some rounds."""
    found = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(CALLS // rounds):
            call()
        found.append((time.thread_time() - start) * rounds / CALLS)
    return 1e6 * min(found)


if __name__ == "__main__":
    main()
