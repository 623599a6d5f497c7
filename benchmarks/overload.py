"""What the lookup still answers when it is asked for more than it can, in an open loop, and what turning away costs.

    python -m benchmarks.overload [--users 20000] [--seconds 15] [--connections 1000] [--folder FOLDER]

One worker on one core. Peak: the most it answered in a closed loop of 16 connections. Then so many times that arrive by
chance (Poisson), over many connections, each case after a rest; last, half the peak right after three times it, second
by second. Goodput: answers of 200 a second; latencies count from when a request was due.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.lookup import print_machine
from benchmarks.open_loop import AT_ONCE, Answer, OpenLoop, Request, Seen, get
from benchmarks.servers import Server, cores, keep_to_client_cores, served
from benchmarks.serving_rows import user_ids
from benchmarks.serving_site import Site, in_service, prepare
from jobs.serve import APP
from lookup_api.app import create_app
from lookup_api.door import Door

LOADS = (0.7, 1.0, 1.5, 3.0)
REST_S = 2.0
AFTER, AFTER_S = 0.5, 5
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
    run(server, asks, 16, AT_ONCE, 2)
    peak = max(run(server, asks, 16, AT_ONCE, seconds / 3).good_per_s for _ in range(3))
    print(f"\npeak {peak:,.0f} answers a second, closed loop of 16 connections; then {connections:,} connections")
    print(f"{'asked':>14} {'goodput':>8} {'of peak':>7} {'turned away':>12} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for load in LOADS:
        time.sleep(REST_S)
        seen = run(server, asks, connections, load * peak, seconds)
        print_line(f"{load:.1f} x peak", seen, peak)
    print_recovery(server, asks, connections, peak, seconds)


def asker(site: Site) -> Callable[[], Request]:
    """Uniform users, without end."""
    draw, ids = np.random.default_rng(17), user_ids(site.users)
    ready: list[int] = []

    def ask() -> Request:
        if not ready:
            ready.extend(draw.choice(ids, 4096).tolist())
        return Request(get(f"/v1/users/{ready.pop()}/recommendations", site.key))

    return ask


def run(server: Server, asks: Callable[[], Request], connections: int, rate: float, seconds: float) -> Seen:
    loop, seen = OpenLoop(server.url, connections), Seen()
    seen.seconds = loop.run(rate, seconds, asks, seen.add)
    loop.close()
    return seen


def print_line(name: str, seen: Seen, peak: float) -> None:
    found = seen.latency()
    away = sum(count for status, count in seen.statuses.items() if status != 200)
    statuses = "" if set(seen.statuses) <= {200, 503} else f"  {dict(seen.statuses)}"
    print(
        f"{name:>14} {seen.good_per_s:8,.0f} {seen.good_per_s / peak:7.2f} {away / seen.seconds:10,.0f}/s "
        f"{found['p50']:8.2f} {found['p99']:8.2f} {found['max']:8.2f}{statuses}",
        flush=True,
    )


def print_recovery(server: Server, asks: Callable[[], Request], connections: int, peak: float, seconds: float) -> None:
    """Three times the peak, and without a pause half of it: what became of each second after."""
    loop, before = OpenLoop(server.url, connections), Seen()
    before.seconds = loop.run(3 * peak, seconds / 2, asks, before.add)
    start = time.perf_counter()
    after = [Seen(seconds=1.0) for _ in range(AFTER_S)]

    def note(answer: Answer) -> None:
        after[min(int(answer.request.due_s - start), AFTER_S - 1)].add(answer)

    loop.run(AFTER * peak, AFTER_S, asks, note)
    loop.close()
    print(f"\n{AFTER} x peak right after 3 x peak ({before.good_per_s / peak:.2f} of peak answered then)")
    for second, seen in enumerate(after, 1):
        print_line(f"second {second}", seen, AFTER * peak)


class Shut:
    """In place of the queue, for as long as everything is turned away."""

    def enter(self) -> bool:
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
        if door.queue.enter():
            door.queue.leave()

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
