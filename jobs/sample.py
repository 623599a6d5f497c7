"""Generates a sample lake: a social network that grew over six years, as the tables of infra.schemas."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import UsageError
from jobs.sampling import facts
from jobs.sampling.friendships import befriend
from jobs.sampling.people import make_people

DEFAULT_END = date(2026, 1, 1)
YEARS = 6
FIRST_YEAR = 1900
"""No network of people on computers is older."""
ROWS_A_FILE = 2_000_000
MAX_USERS = 50_000_000
"""Above this the arrays of one process no longer fit a common machine."""


def generate(users: int, write_file: Callable[[str, Path], None], seed: int, end: date = DEFAULT_END) -> dict[str, Any]:
    """Writes the lake tables of a network of so many users; every fact lies before `end`, 00:00 UTC.

    write_file(key, local_path) stores one file, key relative to the lake, such as connections/part-00000.parquet.
    The same arguments give the same bytes. Returns the counts: users, friendships, rows of each table.
    seed: not negative. Raises UsageError when an argument is out of range.
    """
    if not 1 <= users <= MAX_USERS:
        raise UsageError(f"--users {users}: is not between 1 and {MAX_USERS}", "Give a number within them.")
    if seed < 0:
        raise UsageError(f"--seed {seed}: is negative", "Give 0 or more.")
    if end.year < FIRST_YEAR:
        raise UsageError(f"--end {end}: is before the year {FIRST_YEAR}", "Give a later date.")
    streams = np.random.SeedSequence(seed).spawn(2 + len(facts.TABLES))
    people = make_people(users, np.random.default_rng(streams[0]))
    friendships = befriend(people, np.random.default_rng(streams[1]))
    net = facts.Network(people, friendships, _clock(end))
    rows = {}
    for (name, make), stream in zip(facts.TABLES.items(), streams[2:], strict=True):
        table = make(net, np.random.default_rng(stream))
        rows[name] = table.num_rows
        _write(name, table, write_file)
    return {"users": users, "friendships": friendships.count, "rows": rows, "seed": seed, "end": end.isoformat()}


def _clock(end: date) -> facts.Clock:
    end_us = int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1_000_000
    return facts.Clock(end_us, int(YEARS * 365.25 * facts.DAY))


def _write(name: str, table: pa.Table, write_file: Callable[[str, Path], None]) -> None:
    """Writes a table as part files, at least one, so that an empty table is there too."""
    with TemporaryDirectory(prefix="pymk-sample-") as folder:
        for part in range(max(1, -(-table.num_rows // ROWS_A_FILE))):
            path = Path(folder) / f"part-{part:05d}.parquet"
            pq.write_table(table.slice(part * ROWS_A_FILE, ROWS_A_FILE), path, compression="zstd")
            write_file(f"{name}/{path.name}", path)
            path.unlink(missing_ok=True)
