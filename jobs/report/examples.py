"""A few users' lists with their reasons, as a release would show them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from infra.graph import Graph, Int64

USERS = 5
PLACES = 10


def example_lists(graph: Graph, asked: Int64, rankings: Path, seed: int) -> list[dict[str, Any]]:
    """[{"user_id", "friends", "items": [{"rank", "candidate_id", "score", "reasons"}]}] of USERS users, seeded."""
    rows = asked if len(asked) else np.arange(graph.users)
    rng = np.random.default_rng(np.random.SeedSequence([seed, USERS]))
    chosen = np.sort(rng.choice(rows, min(USERS, len(rows)), replace=False)) if len(rows) else rows
    ids = graph.ids[chosen].tolist()
    items = _read(rankings, ids)
    friends = graph.now.connections.degrees()
    return [
        {"user_id": str(user), "friends": int(friends[row]), "items": items[user]}
        for user, row in zip(ids, chosen, strict=True)
    ]


def _read(rankings: Path, users: list[int]) -> dict[int, list[dict[str, Any]]]:
    """The first PLACES items of each user, best first."""
    items: dict[int, list[dict[str, Any]]] = {user: [] for user in users}
    parts = sorted(rankings.glob("part-*.parquet"))
    if not parts or not users:
        return items
    wanted = pc.field("user_id").isin(pa.array(users, pa.int64())) & (pc.field("rank") <= PLACES)
    table = ds.dataset(parts, format="parquet").to_table(filter=wanted)
    for row in table.sort_by([("user_id", "ascending"), ("rank", "ascending")]).to_pylist():
        owner = row.pop("user_id")
        items[owner].append(row | {"candidate_id": str(row["candidate_id"]), "score": round(row["score"], 5)})
    return items


def reason_words(reason: dict[str, Any]) -> str:
    """A reason as a person would say it, for example `12 mutual connections` or `same school: 17`."""
    kind, count = reason["kind"], reason["count"]
    if reason["attribute"] is not None:
        return f"same {reason['attribute']}: {reason['value']}"
    words = str(kind).replace("_", " ")
    if count is None:
        return words
    return f"{count:,} {words.removesuffix('s') if count == 1 else words}"
