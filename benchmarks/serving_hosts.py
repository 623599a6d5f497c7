"""What it costs to load a release into Redis and to read it from there, beside its files and beside plain keys.

    python -m benchmarks.serving_hosts [--users 50000] [--repeats 200]

Needs redis-server, which is started on this machine. The peer keeps the same rows as one string a key, as most would:
SET in pipelines, GET, MGET. Reads of the three are interleaved; times are medians, with the 99th percentile behind.
DynamoDB is not measured: a server that only speaks its protocol says nothing of its speed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import redis

from benchmarks.lookup import AS_OF, print_machine
from benchmarks.serving_rows import make_release, user_ids
from infra.artifacts import open_artifact
from infra.kv import RANKINGS, SERVING_TABLES, USERS, KeyValueReader
from infra.lmdb_tables import LmdbTables
from infra.loaded_releases import LoadedReleases
from infra.redis_connection import connect
from infra.store import open_store
from infra.table_hosts import open_host
from jobs.release_load import SERVING, load_release
from tests.suites.redis_server import RedisServer

MANY = 1000
PIPELINE = 512
TIMEOUT_S = 30.0


class PlainKeys:
    """The peer: `SET table:key value`."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def load(self, tables: LmdbTables) -> None:
        for table in SERVING_TABLES:
            for keys, values, ends in tables.blocks(table, PIPELINE):
                pipeline, start = self._client.pipeline(transaction=False), 0
                for key, end in zip(keys.tolist(), ends.tolist(), strict=True):
                    pipeline.set(f"{table}:{key}", values[start:end].tobytes())
                    start = end
                pipeline.execute()

    def get(self, table: str, key: int) -> bytes | None:
        return self._client.get(f"{table}:{key}")

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        return self._client.mget([f"{table}:{key}" for key in keys])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, peer = RedisServer(folder / "redis").start(), RedisServer(folder / "peer").start()
        try:
            measure(folder, server, peer, args.users, args.repeats)
        finally:
            server.stop()
            peer.stop()


def measure(folder: Path, server: RedisServer, peer: RedisServer, users: int, repeats: int) -> None:
    store = open_store(str(folder / "store"), create=True)
    release = make_release(store, users, AS_OF, "bench")
    entry = release.artifacts[SERVING]
    files = LmdbTables(open_artifact(store, SERVING, entry.artifact_id).path)
    rows = sum(files.count(table) for table in SERVING_TABLES)
    print(f"{users:,} users, {rows:,} rows, files of {entry.bytes / 2**20:,.0f} MiB, Redis on loopback")

    host = open_host(server.uri, TIMEOUT_S)
    plain = PlainKeys(connect(peer.uri, TIMEOUT_S))
    for what, memory_of, load in (
        ("pymk release load", server, lambda: load_release(store, release, host, 2, True, print)),
        ("plain keys", peer, lambda: plain.load(files)),
    ):
        print(f"{what}: {loaded(memory_of, load, rows)}")

    hosted = LoadedReleases(host).open(release.release_id)
    forms = {"files": files, "pymk in Redis": hosted, "plain keys in Redis": plain}
    ids = user_ids(users)
    for title, read in (("1 ranking", one_ranking), (f"{MANY:,} users' features", many_users)):
        print(
            f"{title}: " + ", ".join(f"{name} {said}" for name, said in interleaved(forms, read, ids, repeats).items())
        )
    host.close()


def loaded(server: RedisServer, load: Callable[[], object], rows: int) -> str:
    before = server.client().info("memory")["used_memory"]
    cpu, wall = time.process_time(), seconds(load)
    cpu = time.process_time() - cpu
    used = server.client().info("memory")["used_memory"] - before
    return f"{wall:.1f} s, {rows / wall:,.0f} rows/s, {cpu:.1f} s of our CPU, {used / 2**20:,.0f} MiB in Redis"


def one_ranking(reader: KeyValueReader | PlainKeys, ids: np.ndarray) -> object:
    return reader.get(RANKINGS, int(ids[0]))


def many_users(reader: KeyValueReader | PlainKeys, ids: np.ndarray) -> object:
    return reader.get_many(USERS, ids.tolist())


def interleaved(
    forms: dict[str, KeyValueReader | PlainKeys],
    read: Callable[[KeyValueReader | PlainKeys, np.ndarray], object],
    ids: np.ndarray,
    repeats: int,
) -> dict[str, str]:
    draw = np.random.default_rng(17)
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        wanted = draw.choice(ids, MANY, replace=False)
        for name, form in forms.items():
            taken[name].append(1e6 * seconds(lambda form=form, wanted=wanted: read(form, wanted)))
    return {name: f"{np.median(us):,.0f} µs (p99 {np.quantile(us, 0.99):,.0f})" for name, us in taken.items()}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
