"""Whom live ranking finds for somebody the release does not know: hidden friends among the first 20.

    python -m benchmarks.live_newcomers --store STORE [--users 300] [--friends 5]

Users of the current release with at least ten friends are asked for under a new id, with a few of their friends as live
facts. The rest of their friends are looked for, in the live list and in those of the rungs below it. The release was
learnt with all of these friendships, so the figures compare rungs; they do not say how good a newcomer's list is.
"""

import argparse

import numpy as np

from infra.artifacts import open_artifact
from infra.graph import Graph
from infra.releases import ReleaseStore
from infra.settings import LadderSettings, Settings
from infra.store import open_store
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, NoFacts, Query, Rung
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.rules import pick
from lookup_api.served_release import ServedRelease

NEWCOMER, SHOWN, LEAST_FRIENDS, SEED = 2**62 - 7, 20, 10, 17
RUNGS = ("live", "heuristic", "popular")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--friends", type=int, default=5)
    args = parser.parse_args()
    store = open_store(args.store)
    release = ReleaseStore(store).current()
    assert release is not None
    ladder = LadderSettings(l1_mib=0, live_budget_ms=60_000, ann_budget_ms=60_000)
    served = ServedRelease.open(store, release, ladder)
    graph = Graph.open(open_artifact(store, "graph", release.artifacts["graph"].artifact_id).path)
    rungs = {rung.source: rung for rung in Lookup.of(Settings(ladder=ladder), Metrics()).ladder.rungs}
    draw = np.random.default_rng(SEED)
    asked = draw.permutation(np.flatnonzero(graph.now.connections.degrees() >= LEAST_FRIENDS))[: args.users]
    found = [hits(rungs, served, graph, int(row), args.friends, draw) for row in asked]
    print(f"{release.release_id}: {len(found)} users, {args.friends} friends known; share of the others among {SHOWN}")
    for name, values in zip(RUNGS, zip(*found, strict=True), strict=True):
        print(f"{name:10} {np.mean(values):.4f} +- {1.96 * np.std(values) / len(values) ** 0.5:.4f}")


def hits(
    rungs: dict[str, Rung], served: ServedRelease, graph: Graph, row: int, known: int, draw: np.random.Generator
) -> list[float]:
    """Share of the hidden friends, of 20 at most, that each rung shows."""
    friends = draw.permutation(graph.ids[graph.now.connections.row(row)]).tolist()
    hidden = set(friends[known:])
    facts = NoFacts(barred=dict.fromkeys(friends[:known], "connected") | {int(graph.ids[row]): "self"})
    ask = Ask(Query(NEWCOMER, SHOWN, frozenset(), False), served, facts, Deadline.after(60))
    shares = []
    for name in RUNGS:
        offer = rungs[name].offer(ask)
        shown = set()
        if offer is not None:
            picked = pick(offer.ranking, SHOWN, (facts.barred, *offer.bars), (SHOWN, SHOWN))
            shown = {offer.ranking.base + record[0] for record in picked.records}
        shares.append(len(hidden & shown) / min(SHOWN, len(hidden)))
    return shares


if __name__ == "__main__":
    main()
