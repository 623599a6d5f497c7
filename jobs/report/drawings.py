"""Which plots a report's page shows, each beside the table it draws."""

from collections.abc import Mapping
from typing import Any

from jobs.metrics import BY_SCORE, RANKER, UNBLENDED
from jobs.report import plots

COMPARED = "recall@20"
MOST_IMPORTANT = 20


def methods_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Metrics by method: the release's own, then the heuristics, best first."""
    rivals = sorted(metrics["heuristics"].items(), key=lambda item: (-(item[1][COMPARED] or 0.0), item[0]))
    return {**variants_of(metrics), **dict(rivals)}


def variants_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Metrics of the release's own lists: as shown, before a blend if there is one, and by score alone."""
    blended = {UNBLENDED: metrics["unblended"]} if metrics.get("unblended") else {}
    return {RANKER: metrics, **blended, BY_SCORE: metrics["by_score"]}


def draw(report: Mapping[str, Any]) -> dict[str, str]:
    """Every plot of the page; an empty text where there is nothing to show."""
    metrics, stages = report["metrics"], report["stages"]
    return {
        "methods": _methods(metrics),
        "bands": _bands(metrics),
        "candidates": _candidates(metrics["candidates"]),
        "depth": _depth(metrics["candidates"].get("by_depth") or {}),
        "ablations": _ablations(metrics.get("ablations") or {}),
        "training": _training(stages.get("encoder", {})),
        "importance": _importance(stages.get("ranker", {})),
        "ann": _ann(report.get("ann") or []),
        "projection": _projection(report.get("projection") or {}, [band["friends"] for band in metrics["bands"]]),
        "costs": plots.bars("Wall time by stage", {one["stage"]: one["wall_s"] for one in report["costs"]}, unit="s"),
        "memory": plots.bars("Peak memory by stage", _memory(report["costs"]), unit="MiB"),
    }


def _methods(metrics: Mapping[str, Any]) -> str:
    values = {name: found[COMPARED] for name, found in methods_of(metrics).items()}
    interval = metrics["intervals"].get(COMPARED)
    return plots.bars(COMPARED, values, RANKER, intervals={RANKER: interval} if interval else {})


def _bands(metrics: Mapping[str, Any]) -> str:
    bands = [band for band in metrics["bands"] if band["users"]]
    return plots.grouped(
        f"{COMPARED} by friends in the past view",
        [band["friends"] for band in bands],
        {name: [band["methods"][name][COMPARED] for band in bands] for name in methods_of(metrics)},
    )


def _candidates(candidates: Mapping[str, Any]) -> str:
    sources = {name: found["recall"] for name, found in candidates["sources"].items() if found["per_user"]}
    found = {"all sources": candidates["recall"]} | {name.replace("_", " "): value for name, value in sources.items()}
    return plots.bars("Hidden friendships among the candidates", found, "all sources")


def _depth(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    sources = {name.replace("_", " "): values for name, values in found["sources"].items()}
    series = {"all sources": found["recall"]} | sources
    return plots.lines("Hidden friendships among the first candidates", found["depths"], series, "candidates a user")


def _ablations(found: Mapping[str, Any]) -> str:
    """How much more is found with a part than without, in percent."""
    ratios = {name: one["metrics"][COMPARED] for name, one in found.items()}
    known = {name: one for name, one in ratios.items() if one["ratio"] is not None}
    gains = {name: 100 * (one["ratio"] - 1) for name, one in known.items()}
    intervals = {
        name: tuple(100 * (end - 1) for end in one["ratio_interval"])
        for name, one in known.items()
        if one["ratio_interval"]
    }
    return plots.points(f"What each part adds to {COMPARED}", gains, intervals, "%")


def _training(encoder: Mapping[str, Any]) -> str:
    curve = encoder.get("curve") or []
    names = sorted({name for point in curve for name in point if name != "step"})
    series = {name: [point.get(name) for point in curve] for name in names}
    return plots.curves("Training of the encoder", [point["step"] for point in curve], series, "step")


def _importance(ranker: Mapping[str, Any]) -> str:
    found = ranker.get("importance") or {}
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return plots.bars("What the ranker looks at", dict(ordered[:MOST_IMPORTANT]), unit="share")


def _ann(found: list[Mapping[str, Any]]) -> str:
    known = {one["backend"]: (one["queries_per_s_batched"], one["recall_at_100"], one["bytes"]) for one in found}
    return plots.speeds("Index: recall@100 against speed", known)


def _projection(found: Mapping[str, Any], bands: list[str]) -> str:
    if not found:
        return ""
    shares = [f"{100 * share:.0f} % of the variance" for share in found["shares"]]
    names = [f"{band} friends" for band in bands]
    return plots.cloud("Embeddings, coloured by number of friends", found, names, shares)


def _memory(costs: list[Mapping[str, Any]]) -> dict[str, float | None]:
    known = {one["stage"]: one["peak_memory_bytes"] for one in costs}
    return {stage: None if size is None else size / 2**20 for stage, size in known.items()}
