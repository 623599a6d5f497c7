"""How an hour's delta release compares with a night: its time, who gets what, and recall beside a full rebuild.

    python -m benchmarks.hourly [--users 100000] [--join 1000] [--friendships 1000] [--no-rebuild] [--json FILE]

Times are of whole commands, `pymk hourly` and `pymk run`, from the start of the process to the published release; those
of the stages alone stand beside them.

A generated network goes on for FUTURE after the night. Of the friendships of then, some form within the hour; half of
those of the hour are of people who join in it, of whom nothing was known before. The later friendships of everybody
whom the hour touches, and all but one or so of who joined, are in no lake: they are what the lists should find, and
recall@20 of them is compared between the delta and a full rebuild at the same as-of.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.pipeline import print_machine, pymk
from infra.artifacts import open_artifact
from infra.releases import Release, ReleaseStore
from infra.schemas import LAKE_TABLES, TIMESTAMP
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from jobs.blocks import parts_of

NIGHT = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = NIGHT + timedelta(hours=1)
FUTURE = timedelta(days=60)
TOP = 20
TIMES = {"profiles": "joined_at", "affiliations": "since", "connections": "connected_at"} | dict.fromkeys(
    ("interactions", "dismissals", "blocks", "impressions", "user_events"), "at"
)
"""Of each table of the lake, when a row came to be known."""
Int64 = npt.NDArray[np.int64]
Lists = dict[int, list[int]]


@dataclass(frozen=True)
class Hour:
    """joined, touched: ids. hidden: friend pairs int64 [n, 2] that no lake holds."""

    joined: Int64
    touched: Int64
    hidden: Int64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--join", type=int, default=1_000)
    parser.add_argument("--friendships", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--no-rebuild", action="store_true", help="leave out the full rebuild, and recall with it")
    parser.add_argument("--set", action="append", default=[], help="a setting of all runs, section.key=value")
    parser.add_argument("--folder", type=Path, help="keep lake and store there; a new folder")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    print_machine()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for figures in measure(args.folder or Path(folder), args):
            found |= figures
            for name, value in figures.items():
                told = f"{value:>14,.4g}" if isinstance(value, float) else f"{value:>14}"
                print(f"{name:<42}{told}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))


def measure(folder: Path, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Figures, as they come."""
    raw, lake, store = folder / "raw", folder / "lake", folder / "store"
    pymk("sample", f"--users={args.users}", f"--lake={raw}", f"--end={NIGHT + FUTURE:%Y-%m-%d}", f"--seed={args.seed}")
    places, settings = [f"--lake={lake}", f"--store={store}"], [f"--set={pair}" for pair in args.set]
    later, hour = cut(raw, lake, args.join, args.friendships, args.seed)
    night, night_s = timed("run", *places, f"--as-of={NIGHT:%Y-%m-%d}", *settings)
    for name, table in later.items():
        pq.write_table(table, lake / name / "later.parquet")
    delta, delta_s = timed("hourly", *places, f"--as-of={HOUR.isoformat()}", *settings)
    again, again_s = timed("hourly", *places, f"--as-of={HOUR.isoformat()}", *settings)
    stages_s = float(sum(stage["cost"]["wall_s"] for stage in night["stages"].values()))
    stage = delta["stages"]["delta_tables"]
    yield {
        "users": args.users,
        "touched": len(hour.touched),
        "night s": night_s,
        "delta s": delta_s,
        "delta / night": delta_s / night_s,
        "night, its stages s": stages_s,
        "delta, its stage s": float(stage["cost"]["wall_s"]),
        "delta / night, stages alone": stage["cost"]["wall_s"] / stages_s,
        "delta peak MiB": stage["cost"]["peak_memory_bytes"] / 2**20,
        "published": delta["published"],
        "again, found": again["stages"]["delta_tables"]["found"],
        "again s": again_s,
    }
    opened = open_store(str(store))
    releases = ReleaseStore(opened)
    lists = shown(opened, releases.get(delta["release_id"]), "serving_delta", "rankings", hour.touched)
    yield {"joined with a list": sum(len(lists.get(person, [])) > 0 for person in hour.joined.tolist())}
    yield untouched(opened, releases.get(night["release_id"]), releases.get(delta["release_id"]), hour)
    if not args.no_rebuild:
        full = pymk("run", *places, f"--as-of={HOUR.isoformat()}", "--no-publish", *settings)
        rebuilt = shown(opened, releases.get(full["release_id"]), "rankings", "", hour.touched)
        yield recalls(lists, rebuilt, hour)


def timed(*words: str) -> tuple[dict[str, Any], float]:
    """What a command printed, and its seconds, from the start of its process to its end."""
    start = time.monotonic()
    made = pymk(*words)
    return made, time.monotonic() - start


def cut(raw: Path, lake: Path, join: int, friendships: int, seed: int) -> tuple[dict[str, pa.Table], Hour]:
    """Writes the lake of the night; returns what comes within the hour, by table."""
    rng = np.random.default_rng(seed)
    whole = {name: pq.read_table(raw / name) for name in LAKE_TABLES if (raw / name).exists()}
    tables = {name: _known(table, TIMES[name]) for name, table in whole.items()}
    tables["dismissals"] = _lasting(tables["dismissals"])
    people = np.setdiff1d(tables["profiles"]["user_id"].to_numpy(), tables["user_events"]["user_id"].to_numpy())
    ever = whole["connections"].filter(pc.is_null(whole["connections"]["disconnected_at"]))
    pairs, is_later = _pairs(ever), pc.fill_null(pc.greater_equal(ever["connected_at"], NIGHT), False).to_numpy()
    among = np.isin(pairs, people).all(axis=1)
    joined = np.sort(rng.choice(np.intersect1d(people, np.unique(pairs[among])), join, replace=False))
    of_joined = np.isin(pairs, joined).sum(axis=1)
    new = np.zeros(len(pairs), bool)
    for chosen in (of_joined == 1, (of_joined == 0) & is_later):
        new[rng.choice(np.flatnonzero(chosen & among), friendships // 2, replace=False)] = True
    touched = np.union1d(joined, pairs[new])
    hidden = among & ~new & (of_joined > 0) | (among & ~new & is_later & np.isin(pairs, touched).any(axis=1))
    later = {"connections": _dated(ever.filter(pa.array(new)), "connected_at", rng)}
    for name, table in tables.items():
        own = _names(table, joined)
        if name in ("profiles", "affiliations"):
            later[name] = table.filter(pa.array(own))
        (lake / name).mkdir(parents=True)
        pq.write_table(table.filter(pa.array(~own)), lake / name / "night.parquet")
    later["profiles"] = _dated(later["profiles"], "joined_at", rng)
    return later, Hour(joined, touched, pairs[hidden])


def _pairs(table: pa.Table) -> Int64:
    return np.stack([table[name].to_numpy() for name in ("user_id", "other_id")], axis=1)


def _known(table: pa.Table, time: str) -> pa.Table:
    """What was known at the night; of who was parted or blocked since nobody hears of the end."""
    past = table.filter(pc.fill_null(pc.less(table[time], NIGHT), True))
    for name in {"disconnected_at", "removed_at"}.intersection(past.schema.names):
        ends = pc.if_else(pc.less(past[name], NIGHT), past[name], pa.scalar(None, past[name].type))
        past = past.set_column(past.schema.get_field_index(name), name, ends)
    return past


def _lasting(dismissals: pa.Table) -> pa.Table:
    """Those that do not expire within the hour: whoever made one that does is touched by that."""
    days = timedelta(days=Settings().graph.dismissal_days)
    made = dismissals["at"]
    expires = pc.and_(
        pc.greater_equal(made, pa.scalar(NIGHT - days, made.type)), pc.less(made, pa.scalar(HOUR - days, made.type))
    )
    return dismissals.filter(pc.invert(expires))


def _names(table: pa.Table, people: Int64) -> npt.NDArray[np.bool_]:
    """Rows that name one of the people."""
    columns = [table[name].to_numpy() for name in ("user_id", "other_id") if name in table.schema.names]
    return np.isin(np.stack(columns, axis=1), people).any(axis=1)


def _dated(table: pa.Table, column: str, rng: np.random.Generator) -> pa.Table:
    """The rows as if they came within the hour."""
    us = int(NIGHT.timestamp()) * 1_000_000 + rng.integers(0, 3_600_000_000, table.num_rows)
    return table.set_column(table.schema.get_field_index(column), column, pa.array(us).cast(TIMESTAMP))


def shown(store: ObjectStore, release: Release, kind: str, under: str, people: Int64) -> Lists:
    """The first TOP of the lists of some people."""
    folder = open_artifact(store, kind, release.artifacts[kind].artifact_id).path / under
    lists: Lists = {}
    for path in parts_of(folder):
        table = pq.read_table(path, columns=["user_id", "candidate_id", "rank"])
        user, rank = table["user_id"].to_numpy(), table["rank"].to_numpy()
        first = table.filter(pa.array(np.isin(user, people) & (rank <= TOP)))
        for owner, person in zip(first["user_id"].to_pylist(), first["candidate_id"].to_pylist(), strict=True):
            lists.setdefault(owner, []).append(person)
    return lists


def recalls(delta: Lists, rebuilt: Lists, hour: Hour) -> dict[str, Any]:
    """recall@TOP of hidden friendships, of who joined and of the others, and the ratio with its 95 % interval."""
    wanted: dict[int, set[int]] = {person: set() for person in hour.touched.tolist()}
    known = set(delta) | {person for people in rebuilt.values() for person in people}
    for one, other in [*hour.hidden.tolist(), *hour.hidden[:, ::-1].tolist()]:
        if one in wanted and other in known:
            wanted[one].add(other)
    asked = [person for person, friends in wanted.items() if friends]
    of = np.array([[_recall(lists.get(one, []), wanted[one]) for lists in (delta, rebuilt)] for one in asked])
    new = np.isin(asked, hour.joined)
    found: dict[str, Any] = {}
    for name, chosen in (("all", np.ones(len(of), bool)), ("joined", new), ("others", ~new)):
        one = of[chosen]
        if not len(one):
            continue
        draws = np.random.default_rng(1).integers(0, len(one), (2000, len(one)))
        ratios = one[draws, 0].mean(axis=1) / np.maximum(one[draws, 1].mean(axis=1), 1e-9)
        low, high = np.quantile(ratios, [0.025, 0.975])
        found |= {
            f"{name}: users asked": len(one),
            f"{name}: recall@{TOP} delta": float(one[:, 0].mean()),
            f"{name}: recall@{TOP} rebuild": float(one[:, 1].mean()),
            f"{name}: delta / rebuild": float(one[:, 0].mean() / max(one[:, 1].mean(), 1e-9)),
            f"{name}: its interval": f"{low:.3f} - {high:.3f}",
        }
    return found


def _recall(listed: list[int], wanted: set[int]) -> float:
    return len(wanted.intersection(listed)) / min(len(wanted), TOP)


def untouched(store: ObjectStore, night: Release, delta: Release, hour: Hour) -> dict[str, Any]:
    """Whether those whom nothing touches are answered as before: each of them, as the API does, and as stored."""
    from infra.kv import RANKINGS
    from infra.settings import LadderSettings
    from lookup_api.deadline import Deadline
    from lookup_api.ladder import Query
    from lookup_api.lookup import NO_FACTS, Lookup
    from lookup_api.metrics import Metrics
    from lookup_api.served_release import ServedRelease

    folder = open_artifact(store, "rankings", night.artifacts["rankings"].artifact_id).path
    users = [np.unique(pq.read_table(path, columns=["user_id"])["user_id"].to_numpy()) for path in parts_of(folder)]
    asked = np.setdiff1d(np.concatenate(users), hour.touched).tolist()
    opened = [ServedRelease.open(store, release, LadderSettings()) for release in (night, delta)]
    before, after = (release.tables.get_many(RANKINGS, asked) for release in opened)
    lookup = Lookup.of(Settings(), Metrics())

    def answer(release: ServedRelease, person: int) -> dict[str, Any]:
        told = lookup.answer(Query(person, TOP, frozenset(), False), release, NO_FACTS, Deadline.after(60))
        return json.loads(orjson.dumps(told.values))

    changed = sum(answer(opened[0], person)["items"] != answer(opened[1], person)["items"] for person in asked)
    joined = [answer(opened[1], person)["source"] for person in hour.joined.tolist()]
    for release in opened:
        release.give_back()
    return {
        "untouched users": len(asked),
        "of them, rows that changed": sum(one != other for one, other in zip(before, after, strict=True)),
        "of them, answers whose items changed": changed,
        "joined, served as ranked": joined.count("precomputed"),
    }


if __name__ == "__main__":
    main()
