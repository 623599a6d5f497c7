"""Requests a second of the precomputed path beside an empty Flask route and two peers: one core, interleaved.

    python -m benchmarks.lookup [--users 20000,1000000] [--seconds 8] [--repeats 5] [--connections 16]
        [--warm 5] [--folder FOLDER] [--peer-users 100000] [--feast FEAST/bin/python]

The lookup asks for an API key, keeps limits, applies rules and live facts and counts its metrics. Its tables are locked
in memory (api.lock_tables), where Redis has its own; a log line says so where they do not fit. Each server has one
worker and one and the same core; wrk, and Redis for the peers, have the others. Uniform: any user, answers not kept (L1
off). Zipf: users drawn by a Zipf law of exponent 0.99 as in YCSB, L1 on. Ratios are medians over the repeats, each of
runs that follow one another, and are what holds on other machines.

Peers, at the last size: Flask + redis-py + jsonify, which stores whole answers, and Feast's feature server on Redis,
asked for the same people, scores and reasons as three features, and as one text. FOLDER keeps tables for another run.
Feast needs an environment of its own: `python -m venv feast && feast/bin/pip install 'feast[redis]'`.
"""

import argparse
import platform
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import redis_peer
from benchmarks.servers import (
    Load,
    Server,
    cores,
    free_port,
    keep_to_client_cores,
    need_wrk,
    running,
    served,
    wait_until_ready,
    wrk,
)
from benchmarks.serving_rows import user_ids
from benchmarks.serving_site import AS_OF, Site, prepare
from infra.settings import LadderSettings, Settings
from infra.store import open_store
from jobs.serve import APP
from lookup_api.deadline import Deadline
from lookup_api.ladder import Query
from lookup_api.lookup import NO_FACTS, Lookup
from lookup_api.metrics import Metrics
from lookup_api.parameters import DEFAULT_LIMIT
from lookup_api.served_release import SERVING, ServedRelease
from tests.suites.redis_server import RedisServer

__all__ = ["AS_OF", "print_machine", "served", "wait_until_ready"]

EMPTY, PEER = "benchmarks.empty_route:create_app", "benchmarks.redis_peer:create_app"
ZIPF = "0.99"
LOCKED_WITHIN_S = 300.0
EMPTY_ROUTE, UNIFORM, KEPT = "empty route", "uniform, no L1", "Zipf, L1"
FEAST_BODY = '{{"features":[{}],"entities":{{"user_id":[ID]}}}}'
FEAST = {"Feast, three features": ("ids", "scores", "reasons"), "Feast, one text": ("items",)}


@dataclass
class Asked:
    """One line of the table: a server, how it is asked, and the runs so far."""

    server: Server
    said: dict[str, str] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(getattr(load, name) for load in self.loads)

    def ratio(self, other: "Asked", name: str = "per_second") -> float:
        pairs = zip(self.loads, other.loads, strict=True)
        return statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="20000", help="sizes of the tables, by comma")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm", type=int, default=5, help="seconds for which each server is asked before, twice")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where tables stay; a temporary one if not given")
    parser.add_argument("--peer-users", type=int, default=100_000, help="of those users, how many the peers know")
    parser.add_argument("--feast", type=Path, help="Python of the environment that has Feast")
    args = parser.parse_args()
    need_wrk()
    print_machine()
    keep_to_client_cores()
    sizes = [int(size) for size in args.users.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        for users in sizes:
            site = prepare((args.folder or Path(scratch)) / f"users-{users}", users)
            with ExitStack() as opened:
                asked = servers(opened, site)
                if users == sizes[-1]:
                    asked |= peers(opened, site, min(args.peer_users, users), Path(scratch), args.feast)
                measure(asked, site, args.warm, args.seconds, args.repeats, args.connections)


def print_machine() -> None:
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB")
    print(
        f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in ("flask", "granian", "lmdb"))
    )


def servers(opened: ExitStack, site: Site) -> dict[str, Asked]:
    core = cores()[0]

    def start(app: str, environment: dict[str, str]) -> Server:
        return opened.enter_context(served(app, environment, core=core))

    found = {
        EMPTY_ROUTE: Asked(start(EMPTY, {})),
        UNIFORM: Asked(start(APP, site.environment(l1=False)), {"key": site.key}),
        KEPT: Asked(start(APP, site.environment(l1=True)), {"key": site.key, "draw": ZIPF}),
    }
    artifact_id = site.release.artifacts[SERVING].artifact_id
    wanted = sum(path.stat().st_size for path in Path(site.uri).glob(f"{SERVING}/{artifact_id}/data/*.lmdb"))
    for name in (UNIFORM, KEPT):
        print(f"{name}: {wait_until_locked(found[name].server, site.key, wanted) >> 20:,} MiB locked in memory")
    return found


def wait_until_locked(server: Server, key: str, wanted: int) -> int:
    """Bytes of the tables that are locked once all are, or where the system goes on refusing."""
    end = time.monotonic() + LOCKED_WITHIN_S
    while (found := int(counter(server, key, "pymk_tables_locked_bytes"))) < wanted and time.monotonic() < end:
        time.sleep(1)
    return found


def peers(opened: ExitStack, site: Site, users: int, scratch: Path, feast: Path | None) -> dict[str, Asked]:
    """Servers that know the first `users` of the users; they are asked for those alone."""
    redis = RedisServer(scratch / "redis").start()
    opened.callback(redis.stop)
    known = {"users": str(users)}
    start = time.perf_counter()
    redis_peer.load(redis.uri, answers(site, users))
    print(f"redis-py peer: {users:,} users loaded in {time.perf_counter() - start:.0f} s", flush=True)
    core = cores()[0]
    found = {
        "Flask + redis-py": Asked(
            opened.enter_context(served(PEER, {redis_peer.URI_VARIABLE: redis.uri}, core=core)), known
        )
    }
    if feast is None:
        return found
    server = opened.enter_context(feast_server(site, users, scratch, feast, f"127.0.0.1:{redis.port}", core))
    for name, columns in FEAST.items():
        body = FEAST_BODY.format(",".join(f'"people:{column}"' for column in columns))
        found[name] = Asked(server, known | {"path": "/get-online-features", "body": body})
    return found


def feast_server(
    site: Site, users: int, scratch: Path, python: Path, redis: str, core: set[int]
) -> AbstractContextManager[Server]:
    folder, rows, port = scratch / "feast", scratch / "rows.parquet", free_port()
    folder.mkdir()
    write_rows(rows, answers(site, users))
    command = [str(python), str(Path(__file__).with_name("feast_peer.py")), str(folder), str(rows), redis, str(port)]
    quiet = {"FEAST_USAGE": "False", "GUNICORN_CMD_ARGS": "--log-level warning"}
    return running(command, quiet, f"http://127.0.0.1:{port}", "/health", core, patience_s=1800)


def answers(site: Site, users: int) -> Iterator[tuple[int, bytes]]:
    """User id and answer, as the lookup gives it to somebody of whom nothing happened since."""
    lookup = Lookup.of(Settings(ladder=LadderSettings(l1_mib=0, last_good_mib=0)), Metrics())
    release = ServedRelease.open(open_store(site.uri), site.release)
    for user_id in user_ids(users).tolist():
        query = Query(user_id, DEFAULT_LIMIT, frozenset(), False)
        yield user_id, orjson.dumps(lookup.answer(query, release, NO_FACTS, Deadline.after(60)).values)
    release.give_back()


def write_rows(path: Path, found: Iterator[tuple[int, bytes]], block: int = 5000) -> None:
    """The answers as Feast's columns: one text an item for its reasons, and the items as one text."""
    columns = (("ids", pa.list_(pa.int64())), ("scores", pa.list_(pa.float32())), ("reasons", pa.list_(pa.string())))
    schema = pa.schema([("user_id", pa.int64()), *columns, ("items", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        rows = []
        for user_id, answer in found:
            items = orjson.loads(answer)["items"]
            rows.append(
                {
                    "user_id": user_id,
                    "ids": [int(item["user_id"]) for item in items],
                    "scores": [item["score"] for item in items],
                    "reasons": [orjson.dumps(item["reasons"]).decode() for item in items],
                    "items": orjson.dumps(items).decode(),
                }
            )
            if len(rows) == block:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def measure(asked: dict[str, Asked], site: Site, warm: int, seconds: int, repeats: int, connections: int) -> None:
    """Prints all servers beside the empty route: medians of interleaved runs."""
    print(f"\n{site.users:,} users, {connections} connections, one worker each, {repeats} x {seconds} s", flush=True)

    def ask(one: Asked, seconds: int) -> Load:
        said = {"users": str(site.users)} | one.said
        return wrk(one.server, seconds=seconds, connections=connections, **said)

    for one in [*asked.values(), *asked.values()]:
        ask(one, warm)
    before = {name: one.server.own_mib() for name, one in asked.items()}
    for _ in range(repeats):
        for one in asked.values():
            one.loads.append(ask(one, seconds))
    empty = asked[EMPTY_ROUTE]
    print(f"{'':22} {'req/s':>7} {'ratio':>6} {'p50':>6} {'p99':>7} {'ratio':>6} {'CPU us':>7} {'MiB':>5} errors")
    for name, one in asked.items():
        errors = sum(load.errors for load in one.loads)
        print(
            f"{name:22} {one.median('per_second'):7,.0f} {one.ratio(empty):6.2f} {one.median('p50_ms'):6.2f} "
            f"{one.median('p99_ms'):7.2f} {one.ratio(empty, 'p99_ms'):6.2f} {one.median('cpu_us'):7.0f} "
            f"{one.server.own_mib():5.0f} {errors:6}"
        )
    for name, one in asked.items():
        if name not in (EMPTY_ROUTE, UNIFORM, KEPT):
            print(f"uniform, no L1, over {name}: {asked[UNIFORM].ratio(one):.1f}")
    print_worker(asked, before, site)


def print_worker(asked: dict[str, Asked], before: dict[str, float], site: Site) -> None:
    kept = asked[KEPT]
    hits, misses = (counter(kept.server, site.key, f'pymk_cache_lookups_total{{cache="l1",result="{result}"}}')
                    for result in ("hit", "miss"))  # fmt: skip
    grown = asked[UNIFORM].server.own_mib() - before[UNIFORM]
    print(
        f"L1 hits {hits / max(hits + misses, 1):.2f}; a worker's own memory {asked[UNIFORM].server.own_mib():.0f} MiB "
        f"without L1 ({grown:+.0f} under load), {kept.server.own_mib():.0f} with it; resident with mapped tables "
        f"{asked[UNIFORM].server.resident_mib():,.0f} MiB",
        flush=True,
    )


def counter(server: Server, key: str, name: str) -> float:
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


if __name__ == "__main__":
    main()
