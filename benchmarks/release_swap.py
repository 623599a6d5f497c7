"""A steady 1,000 requests a second for a minute while three different releases are published one after the other.

    python -m benchmarks.release_swap [--rate 1000] [--seconds 60] [--users 20000] [--workers 1]

An open loop: requests are sent on time whether or not earlier ones came back, over kept-alive connections. Every answer
is checked: status 200, and that its items, its as-of and its release id are of one release.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import orjson

from benchmarks.lookup import AS_OF, print_machine, served
from benchmarks.serving_rows import TAG, make_release, publish, user_ids
from infra.releases import Release, ReleaseStore
from infra.settings import Settings
from infra.store import open_store
from jobs.serve import APP, worker_environment

CONNECTIONS = 32
RELEASES = 3


@dataclass
class Seen:
    """What came back. latencies_s: from the time a request was due."""

    failed: int = 0
    mixed: int = 0
    by_release: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        first = publish(store, args.users, AS_OF, "night-0")
        later = [make_release(store, args.users, AS_OF + timedelta(days=n), f"night-{n}", n) for n in (1, 2, 3)]
        tags = {release.release_id: f"night-{n}" for n, release in enumerate([first, *later])}
        with served(APP, worker_environment(folder, Settings()), args.workers) as server:
            publisher = threading.Thread(target=publish_later, args=(ReleaseStore(store), later, args.seconds))
            publisher.start()
            seen = asyncio.run(load(server.url, args, {r.release_id: r for r in [first, *later]}, tags))
            publisher.join()
    report(seen, args.rate * args.seconds)
    sys.exit(bool(seen.failed or seen.mixed or len(seen.by_release) != RELEASES + 1))


def publish_later(releases: ReleaseStore, later: list[Release], seconds: int) -> None:
    """Moves CURRENT at one, two and three quarters of the time."""
    start = time.monotonic()
    for number, release in enumerate(later, 1):
        time.sleep(max(0.0, start + seconds * number / (len(later) + 1) - time.monotonic()))
        releases.publish(release)


async def load(url: str, args: argparse.Namespace, releases: dict[str, Release], tags: dict[str, str]) -> Seen:
    host, port = url.removeprefix("http://").split(":")
    ids = np.random.default_rng(17).choice(user_ids(args.users), args.rate * args.seconds).tolist()
    due: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
    seen = Seen()
    workers = [asyncio.create_task(connection(host, int(port), due, seen, releases, tags)) for _ in range(CONNECTIONS)]
    start = time.perf_counter()
    for number, user in enumerate(ids):
        at = start + number / args.rate
        if (wait := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        due.put_nowait((at, user))
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    return seen


async def connection(host, port, due, seen, releases, tags) -> None:
    """One kept-alive connection; a request that breaks counts as failed and the connection is opened anew."""
    reader, writer = await asyncio.open_connection(host, port)
    while (job := await due.get()) is not None:
        at, user = job
        try:
            writer.write(f"GET /v1/users/{user}/recommendations HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status, body = await read_answer(reader)
            seen.latencies_s.append(time.perf_counter() - at)
            check(status, body, seen, releases, tags)
        except (OSError, asyncio.IncompleteReadError):
            seen.failed += 1
            reader, writer = await asyncio.open_connection(host, port)
    writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:"))
    return int(head[0].split()[1]), await reader.readexactly(length)


def check(status: int, body: bytes, seen: Seen, releases: dict[str, Release], tags: dict[str, str]) -> None:
    if status != 200:
        seen.failed += 1
        return
    answer = orjson.loads(body)
    release = releases[answer["release"]]
    found = {r["value"] for item in answer["items"] for r in item["reasons"] if r.get("attribute") == TAG}
    if found != {tags[release.release_id]} or answer["as_of"] != release.as_of:
        seen.mixed += 1
    seen.by_release[release.release_id] += 1


def report(seen: Seen, asked: int) -> None:
    took = np.percentile(seen.latencies_s, [50, 99, 99.9, 100]) * 1e3
    print(f"{asked:,} requests: {seen.failed} failed, {seen.mixed} mixed two releases")
    print(
        "latency from the due time: "
        + ", ".join(f"{n} {v:.1f} ms" for n, v in zip(("p50", "p99", "p99.9", "max"), took, strict=True))
    )
    for release_id, count in sorted(seen.by_release.items()):
        print(f"  {release_id}: {count:,} answers")


if __name__ == "__main__":
    main()
