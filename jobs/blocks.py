"""Parquet parts of pair tables: one file a block of users, written whole or not at all, hashed in order."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import Graph, Int32, ViewName
from infra.hashing import TableHash

RunAll = Callable[[Callable[[int], dict[str, Any]], int], list[dict[str, Any]]]
"""Runs function(block) for each of a number of blocks; the answers in block order."""
VIEWS: tuple[ViewName, ...] = ("past", "now")


def blocks_of(users: int, size: int) -> int:
    return -(-users // size)


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def parts_of(folder: Path) -> list[Path]:
    """The parts of a table, in order."""
    return sorted(folder.glob("part-*.parquet"))


def write_part(table: pa.Table, path: Path) -> None:
    """Writes beside and renames, so that a task that is run again or killed leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # process ids repeat from machine to machine
    pq.write_table(table, beside, compression="zstd", compression_level=1)
    os.replace(beside, path)


def read_parts(folder: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Each part as a table."""
    for path in parts_of(folder):
        yield pq.read_table(path, columns=columns)


def hash_parts(folder: Path) -> TableHash:
    """Hash and row count of all parts."""
    digest = TableHash()
    for table in read_parts(folder):
        digest.update(table)
    return digest


def asked_users(graph: Graph, view: ViewName, limit: int, seed: int) -> Int32:
    """Rows that get candidates, int32 ascending: all in now; in past those with a held-out friend, a seeded `limit`."""
    if view == "now":
        return np.arange(graph.users, dtype=np.int32)
    asked = np.unique(graph.held_out).astype(np.int32)
    if len(asked) <= limit:
        return asked
    chosen = np.random.default_rng(np.random.SeedSequence([seed, 1])).choice(len(asked), limit, replace=False)
    return asked[np.sort(chosen)]
