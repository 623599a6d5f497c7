"""Stage evaluate: what the release's models are worth, measured on friendships and users they never saw."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infra.graph import Csr, Graph, Int32, Int64
from infra.hashing import ContentHash
from jobs.context import StageContext, StageResult
from jobs.held_out import CandidateRecall, choose_asked, rank_past
from jobs.heuristics import HEURISTICS, heuristic_lists
from jobs.integrity import check_rankings
from jobs.metrics import BY_SCORE, DEPTH, RANKER, TOP, PerUser, find_hits, per_user, spread
from jobs.report.content import assemble_report
from jobs.report.examples import example_lists
from jobs.report.page import write_report

BANDS = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 49), (50, 99), (100, None))
"""Friends in the past view, first and last of a band."""

NEW_USER_FRIENDS = 4
"""A user with at most so many friends in the past view is new."""


def run(ctx: StageContext) -> StageResult:
    """Writes data/report.json and data/report.html; rows = asked users."""
    graph = Graph.open(ctx.inputs["graph"].path)
    seed = ctx.settings.run.seed
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, ctx.settings.candidates.learn_users, seed)
    folders = {kind: parent.path for kind, parent in ctx.inputs.items()}
    past = rank_past(graph, folders, hidden, asked, ctx.settings.rank)
    ctx.progress(f"ranked the past view for {len(asked):,} users")
    rivals = heuristic_lists(graph.past.connections, asked, DEPTH, ctx.settings.run.threads)
    metrics = measure(graph, hidden, asked, {RANKER: past.shown, BY_SCORE: past.by_score, **rivals}, seed)
    metrics["candidates"] = candidate_metrics(past.recall, int(hidden.degrees()[asked].sum()), len(asked))
    metrics |= check_rankings(graph, ctx.inputs["rankings"].path)
    examples = example_lists(graph, asked, ctx.inputs["rankings"].path, seed)
    content_hash = ContentHash().json("metrics", metrics).json("examples", examples).hexdigest()
    write_report(ctx.data, assemble_report(graph, ctx.as_of, metrics, examples, ctx.inputs))
    return StageResult(len(asked), content_hash, metrics)


def measure(graph: Graph, hidden: Csr, asked: Int64, lists: Mapping[str, Int32], seed: int) -> dict[str, Any]:
    """Every metric of every method, over all asked users, by degree band and for new users.

    Metrics of RANKER are at the top; those of the others under "heuristics".
    """
    hidden_count = hidden.degrees()[asked]
    friends = graph.past.connections.degrees()[asked]
    values = {name: per_user(find_hits(found, asked, hidden), hidden_count) for name, found in lists.items()}
    own = values[RANKER]
    overall = {name: value.means() | spread(lists[name], graph.users) for name, value in values.items()}
    return {
        **overall[RANKER],
        "intervals": own.intervals(seed),
        "asked_users": len(asked),
        "hidden_friendships": int(hidden_count.sum()),
        "hold_out": graph.hold_out,
        "by_score": overall[BY_SCORE],
        "heuristics": {name: overall[name] for name in HEURISTICS if name in overall},
        "bands": [_band(values, friends, first, last) for first, last in BANDS],
        "new_users": _band(values, friends, 0, NEW_USER_FRIENDS),
    }


def _band(values: Mapping[str, PerUser], friends: Int64, first: int, last: int | None) -> dict[str, Any]:
    chosen = (friends >= first) & (friends <= (np.inf if last is None else last))
    return {
        "friends": f"{first}" if first == last else f"{first}+" if last is None else f"{first}-{last}",
        "users": int(chosen.sum()),
        "methods": {name: value.means(chosen) for name, value in values.items()},
    }


def candidate_metrics(recall: CandidateRecall, hidden: int, asked: int) -> dict[str, Any]:
    """Shares of the asked users' hidden friendships, in all and by source; None without any."""

    def share(found: int) -> float | None:
        return found / hidden if hidden else None

    return {
        "per_user": recall.pairs / asked if asked else None,
        "recall": share(recall.hits),
        f"best_share@{TOP}": share(recall.best),
        "sources": {
            name: {
                "per_user": recall.named[name] / asked if asked else None,
                "recall": share(recall.found[name]),
                "recall_alone": share(recall.found_alone[name]),
            }
            for name in recall.named
        },
    }
