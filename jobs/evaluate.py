"""Stage evaluate: what the release's models are worth, measured on friendships and users they never saw."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infra.graph import Csr, Float32, Graph, Int32, Int64, open_array
from infra.hashing import ContentHash
from jobs.ablations import ablate
from jobs.ann_figures import compared, figures_of
from jobs.blocks import VIEWS
from jobs.candidate_depth import recall_by_depth
from jobs.comparison import against_best
from jobs.context import StageContext, StageResult
from jobs.held_out import CandidateRecall, choose_asked, rank_past
from jobs.heuristics import HEURISTICS, heuristic_lists
from jobs.integrity import check_rankings
from jobs.metrics import (
    BY_SCORE,
    DEPTH,
    RANKER,
    TOP,
    UNBLENDED,
    PerUser,
    by_source,
    find_hits,
    list_similarity,
    per_user,
    spread,
)
from jobs.report.content import assemble_report
from jobs.report.examples import example_lists
from jobs.report.page import write_report
from jobs.report.projection import project

BANDS = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 49), (50, 99), (100, None))
"""Friends in the past view, first and last of a band."""

NEW_USER_FRIENDS = 4
"""A user with at most so many friends in the past view is new."""


def run(ctx: StageContext) -> StageResult:
    """Writes data/report.json and data/report.html; rows = asked users."""
    graph = Graph.open(ctx.inputs["graph"].path)
    settings, seed = ctx.settings, ctx.settings.run.seed
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, settings.candidates.learn_users, seed)
    folders = {kind: parent.path for kind, parent in ctx.inputs.items()}
    past = rank_past(graph, folders, hidden, asked, settings.rank)
    ctx.progress(f"ranked the past view for {len(asked):,} users")
    rivals = heuristic_lists(graph.past.connections, asked, DEPTH, settings.run.threads)
    vectors = {view: open_array(folders["embeddings"] / f"{view}.npy") for view in VIEWS}
    metrics = measure(graph, hidden, asked, past.lists() | rivals, vectors["past"], seed)
    held = hidden.degrees()[asked]
    metrics["by_source"] = by_source(find_hits(past.shown, asked, hidden), past.sources, held)
    metrics["candidates"] = candidate_metrics(past.recall, int(held.sum()), len(asked))
    metrics["candidates"]["by_depth"] = recall_by_depth(folders, hidden, asked, settings)
    metrics["ablations"] = ablate(ctx, hidden, asked, settings.evaluate.ablations)
    metrics |= check_rankings(graph, folders["rankings"])
    examples = example_lists(graph, asked, folders["rankings"], seed)
    content_hash = ContentHash().json("metrics", metrics).json("examples", examples).hexdigest()
    report = assemble_report(graph, ctx.as_of, metrics, examples, ctx.inputs)
    report["ann"] = ann_figures(ctx, vectors["now"])
    report["projection"] = project(vectors["now"], band_of(graph.now.connections.degrees()), seed)
    write_report(ctx.data, report)
    return StageResult(len(asked), content_hash, metrics)


def ann_figures(ctx: StageContext, vectors: Float32) -> list[dict[str, Any]]:
    """The index of this release, then the backends asked for. Speeds differ from run to run: no part of the content."""
    own = {"backend": f"{ctx.settings.index.backend} (this release)", "build_s": None}
    found = [own | figures_of(ctx.inputs["index"].path / "now", vectors, ctx.settings)]
    for figures in compared(vectors, ctx.settings, ctx.settings.evaluate.backends, ctx.data.parent):
        ctx.progress(f"index {figures['backend']}: recall@100 {figures['recall_at_100']:.4f}")
        found.append(figures)
    return found


def measure(
    graph: Graph, hidden: Csr, asked: Int64, lists: Mapping[str, Int32], vectors: Float32, seed: int
) -> dict[str, Any]:
    """Every metric of every method, over all asked users, by degree band and for new users.

    Metrics of RANKER are at the top; those of the others under "variants" and "heuristics". vectors: of the past view.
    """
    hidden_count = hidden.degrees()[asked]
    friends = graph.past.connections.degrees()[asked]
    values = {name: per_user(find_hits(found, asked, hidden), hidden_count) for name, found in lists.items()}
    own = values[RANKER]
    overall = {
        name: value.means()
        | spread(lists[name], graph.users)
        | {f"similarity@{TOP}": list_similarity(lists[name], vectors)}
        for name, value in values.items()
    }
    return {
        **overall[RANKER],
        "intervals": own.intervals(seed),
        "against_best": against_best(values, RANKER, HEURISTICS, seed),
        "asked_users": len(asked),
        "hidden_friendships": int(hidden_count.sum()),
        "hold_out": graph.hold_out,
        "by_score": overall[BY_SCORE],
        "unblended": overall.get(UNBLENDED),
        "heuristics": {name: overall[name] for name in HEURISTICS if name in overall},
        "bands": [_band(values, friends, first, last, seed) for first, last in BANDS],
        "new_users": _band(values, friends, 0, NEW_USER_FRIENDS, seed),
    }


def band_of(friends: Int64) -> Int64:
    """The number of the band, in BANDS, of each count of friends."""
    return np.searchsorted([first for first, _ in BANDS], friends, side="right") - 1


def _band(values: Mapping[str, PerUser], friends: Int64, first: int, last: int | None, seed: int) -> dict[str, Any]:
    chosen = (friends >= first) & (friends <= (np.inf if last is None else last))
    return {
        "friends": band_name(first, last),
        "users": int(chosen.sum()),
        "methods": {name: value.means(chosen) for name, value in values.items()},
        "intervals": values[RANKER].where(chosen).intervals(seed),
    }


def band_name(first: int, last: int | None) -> str:
    return f"{first}" if first == last else f"{first}+" if last is None else f"{first}-{last}"


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
