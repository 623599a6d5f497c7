"""The faults: how each begins and ends at a site, and what callers must be told meanwhile."""

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.lookup_api.faults.faulty_app import CLOCK, RANKER
from tests.lookup_api.faults.site import Site

JUMP_S = 400 * 86_400
FULL_BYTES = "1"
USES_FACTS = ("redis killed", "redis hung")
STORE_AWAY = ("S3 gone", "S3 hung")
HEALTHY = {"precomputed": {"precomputed"}, "live": {"live"}, "newcomer": {"live"}, "unknown": {"popular"}}
"""Kind of user -> where their list comes from."""
WITHOUT_RANKER = HEALTHY | {"live": {"heuristic"}, "newcomer": {"heuristic"}}


@dataclass(frozen=True)
class Fault:
    """restarts: workers must be restarted once it began, and once it ended, to meet it."""

    name: str
    begin: Callable[[Site], None]
    end: Callable[[Site], None]
    restarts: bool = False


def _switch(name: str, text: str = "") -> Callable[[Site], None]:
    def turn(site: Site) -> None:
        new = site.switches / f"{name}.new"
        new.write_text(text)
        new.replace(site.switches / name)

    return turn


def _switch_off(name: str) -> Callable[[Site], None]:
    return lambda site: (site.switches / name).unlink(missing_ok=True)


def _delete_newest(site: Site) -> None:
    """Its record and the manifest of its serving tables."""
    entry = site.newest.artifacts["serving_tables"]
    away = site.folder / "away"
    for key in (f"releases/{site.newest.release_id}.json", entry.path.removesuffix("data") + "manifest.json"):
        target = away / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(site.store.get(key).data)
        site.store.delete(key)


def _restore_newest(site: Site) -> None:
    away = site.folder / "away"
    for file in sorted(away.rglob("*.json"), reverse=True):
        site.store.put(file.relative_to(away).as_posix(), file.read_bytes())
    shutil.rmtree(away)


def _lose_shard(site: Site) -> None:
    """One shard of the index, of both releases, in the store and on this machine."""
    for release in (site.earlier, site.newest):
        path = release.artifacts["index"].path
        manifest = json.loads(site.store.get(path.removesuffix("data") + "manifest.json").data)
        names = [one["path"] for one in manifest["files"] if one["path"].startswith("now/") and "/" in one["path"][4:]]
        shard = min(name.split("/")[1] for name in names)
        for name in (name for name in names if name.split("/")[1] == shard):
            kept = site.folder / "shards" / release.release_id / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(site.store.get(f"{path}/{name}").data)
            site.store.delete(f"{path}/{name}")
    for copy in site.cache.rglob(f"index/*/data/now/{shard}"):
        shutil.rmtree(copy)


def _find_shard(site: Site) -> None:
    for release in (site.earlier, site.newest):
        kept = site.folder / "shards" / release.release_id
        for file in (path for path in kept.rglob("*") if path.is_file()):
            site.store.put(f"{release.artifacts['index'].path}/{file.relative_to(kept).as_posix()}", file.read_bytes())
    shutil.rmtree(site.folder / "shards")


def _fill_log(site: Site) -> None:
    with site.redis.client() as client:
        client.config_set("maxmemory", FULL_BYTES)


def _empty_log(site: Site) -> None:
    with site.redis.client() as client:
        client.config_set("maxmemory", "0")


FAULTS = (
    Fault("log full", _fill_log, _empty_log),
    Fault("newest release deleted", _delete_newest, _restore_newest, restarts=True),
    Fault("shard missing", _lose_shard, _find_shard, restarts=True),
    Fault("ranker raises", _switch(RANKER), _switch_off(RANKER)),
    Fault("clock ahead", _switch(CLOCK, str(JUMP_S)), _switch_off(CLOCK)),
    Fault("clock behind", _switch(CLOCK, str(-JUMP_S)), _switch_off(CLOCK)),
    Fault("S3 gone", lambda site: site.wire.cut(), lambda site: site.wire.mend()),
    Fault("S3 hung", lambda site: site.wire.hang(), lambda site: site.wire.mend()),
    Fault("redis hung", lambda site: site.redis.hang(), lambda site: site.redis.resume()),
    Fault("redis killed", lambda site: site.redis.kill(), lambda site: site.redis.start() and None),
)  # fmt: skip
"""In the order in which they begin: what cannot be done any more once another began, first."""
BY_NAME = {fault.name: fault for fault in FAULTS}


def sources(kind: str, faults: Collection[str], cache: str = "none") -> set[str]:
    """Where a list of a kind of user may come from. cache: which one it was kept in; such lists need no ranker."""
    if any(name in faults for name in USES_FACTS):
        return {"none"}
    return (WITHOUT_RANKER if "ranker raises" in faults and cache == "none" else HEALTHY)[kind]


def releases(site: Site, faults: Collection[str]) -> set[str]:
    """Which may be served: workers that find no store serve what their machine kept."""
    if "newest release deleted" not in faults:
        return {site.newest.release_id}
    away = any(name in faults for name in STORE_AWAY)
    return {site.earlier.release_id, *([site.newest.release_id] if away else [])}


def lacks(faults: Collection[str]) -> bool:
    """Whether a list that was made live, just now, is made with less and says so."""
    return any(name in faults for name in (*USES_FACTS, "ranker raises", "shard missing"))


def stores_events(faults: Collection[str]) -> bool:
    return not any(name in faults for name in (*USES_FACTS, "log full"))


def clashes(one: str, other: str) -> bool:
    """Whether two cannot be at once."""
    return any({one, other} <= group for group in (
        {"redis killed", "redis hung"}, {"S3 gone", "S3 hung"}, {"clock ahead", "clock behind"},
    ))  # fmt: skip
