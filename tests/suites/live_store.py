"""A store with one whole release of a small planted graph, as live ranking needs it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.artifacts import Manifest, write_artifact
from infra.graph import Csr, Graph
from infra.releases import Release, ReleaseStore
from infra.settings import IndexSettings, RankSettings, RulesSettings, ServingSettings, Settings
from infra.store import ObjectStore
from infra.times import format_time
from jobs import serving_tables
from jobs.context import Parent
from jobs.inactive_bars import FILE, INACTIVE_BARS
from tests.suites.planted import planted_graph
from tests.suites.small_release import AS_OF, SETTINGS, context, small_release

LIVE_SETTINGS = Settings(
    candidates=SETTINGS.candidates,
    ranker=SETTINGS.ranker,
    rank=RankSettings(per_user=30, exposure=0.5),
    index=IndexSettings(backend="exact", shards=3),
    serving=ServingSettings(candidates=150, neighbours=9, popular=30),
    rules=RulesSettings(company_attributes=("club",)),
)
"""So few friends are stored that most are known from the bars alone."""
SERVED = ("index", "ranker", "serving_tables")


def guarded_graph(seed: int = 5) -> Graph:
    """A planted graph in which every third user and somebody else must not see each other."""
    graph = planted_graph(seed=seed)
    one = np.arange(0, graph.users, 3)
    other = (one * 7 + 11) % graph.users
    pairs = np.unique(np.sort(np.stack([one, other], axis=1)[one != other], axis=1), axis=0)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return replace(graph, excluded=Csr.from_pairs(graph.users, both[:, 0], both[:, 1]))


def live_artifacts(
    folder: Path, graph: Graph, settings: Settings = LIVE_SETTINGS, inactive: Mapping[int, Sequence[int]] | None = None
) -> dict[str, Parent]:
    """All artifacts of a night, serving tables included. inactive: users whom it left out, and from whom they must be
    kept; people ascending."""
    made = small_release(folder, graph, settings)
    if inactive:
        pairs = [(user, other) for user in sorted(inactive) for other in sorted(inactive[user])]
        columns = [pa.array(ids, pa.int64()) for ids in zip(*pairs, strict=True)]
        pq.write_table(pa.table(columns, schema=INACTIVE_BARS), made["graph"].path / FILE)
    data = folder / "serving_tables"
    result = serving_tables.run(context(made, data, settings))
    made["serving_tables"] = Parent("serving_tables-1", data, result.content_hash, {"rows": result.rows})
    return made


def publish_live(
    store: ObjectStore,
    made: Mapping[str, Parent],
    as_of: datetime = AS_OF,
    kinds: Sequence[str] = SERVED,
    settings: Settings | None = None,
) -> Release:
    """Makes a release of what the API reads, or of other kinds, and points CURRENT there. settings: that it names."""
    manifests, told = {}, settings.model_dump(mode="json") if settings else {}
    for kind in kinds:
        parent, scratch = made[kind], store.scratch()
        shutil.copytree(parent.path, scratch / "data")
        name = f"{as_of:%Y%m%dT%H%M%SZ}-{parent.content_hash[:16].rjust(16, '0')}"
        manifest = Manifest(
            kind, name, format_time(as_of), {}, told, 17, "tests", int(parent.manifest["rows"]), parent.content_hash, ()
        )
        manifests[kind] = write_artifact(store, scratch, manifest)
    releases = ReleaseStore(store)
    release = releases.make(manifests)
    releases.publish(release)
    return release
