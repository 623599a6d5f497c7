"""What a report says: metrics, and from the manifests of the stages what they measured and what they cost."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.graph import Graph
from infra.times import format_time
from jobs.context import Parent
from jobs.stages import stage_of

PROTOCOL = (
    "Models learn on the past view, without the held-out friendships, and from other users than those asked here. "
    "Each asked user was kept for this report and has at least one held-out friend. The whole network is ranked, "
    "without sampled negatives. recall@k = found among the first k / min(k, held out); ndcg@k with gains 0 or 1; "
    "mrr over the first 100; intervals are 95 % bootstrap intervals over users, and where two rankings are compared, "
    "over the same users for both. The heuristics rank the whole network "
    "in the same view; personalised PageRank leaves out mass thinner than 1/200,000 an edge, which on a dense network "
    "makes it stronger."
)

ABLATION_NOTE = (
    "A part is left out by taking what it says of a pair, and the candidates that only it named, from the past view; "
    "the ranker learns again, with all parts too. Places that only the part filled stay empty. The encoder is not "
    "learnt again: without profiles, embeddings still know them. In place of the ranker stands the one signal that was "
    "best on validation users, in the unit of a ranker's scores; prices, blend and who ranks for newcomers stay."
)


def assemble_report(
    graph: Graph,
    as_of: datetime,
    metrics: Mapping[str, Any],
    examples: list[dict[str, Any]],
    inputs: Mapping[str, Parent],
) -> dict[str, Any]:
    """The report as one JSON object."""
    return {
        "as_of": format_time(as_of),
        "protocol": PROTOCOL,
        "notes": _notes(graph, metrics),
        "graph": {
            "users": graph.users,
            "friendships": graph.now.connections.entries // 2,
            "friendships_past": graph.past.connections.entries // 2,
            "held_out": len(graph.held_out),
            "hold_out": graph.hold_out,
        },
        "metrics": dict(metrics),
        "stages": {kind: dict(parent.manifest["metrics"]) for kind, parent in inputs.items()},
        "costs": [_cost(kind, parent) for kind, parent in inputs.items()],
        "artifacts": {kind: parent.artifact_id for kind, parent in inputs.items()},
        "examples": examples,
    }


def _cost(kind: str, parent: Parent) -> dict[str, Any]:
    cost, rows = parent.manifest["cost"], parent.manifest["rows"]
    wall = cost.get("wall_s")
    return {
        "stage": stage_of(kind).name,
        "rows": rows,
        "wall_s": wall,
        "cpu_s": cost.get("cpu_s"),
        "peak_memory_bytes": cost.get("peak_memory_bytes"),
        "rows_per_s": round(rows / wall) if wall else None,
    }


def _notes(graph: Graph, metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    if not graph.users:
        notes.append("The graph has no users: there is nobody to rank or to measure on.")
    elif not len(graph.held_out):
        notes.append("No friendship could be held out: the metrics cannot be measured and are null.")
    elif not metrics["asked_users"]:
        notes.append("None of the users kept for the report has a held-out friend: the metrics are null.")
    elif metrics["asked_users"] < 200:
        notes.append(f"Only {metrics['asked_users']} users were asked: the intervals are wide.")
    if graph.hold_out == "random" and len(graph.held_out):
        notes.append("Friendships carry no times: a seeded share was held out instead of the newest.")
    faults = {name: count for name, count in metrics["faults"].items() if count}
    if faults:
        notes.append(f"The rankings are faulty and must not be published: {faults}.")
    return notes
