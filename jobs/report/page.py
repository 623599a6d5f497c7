"""Writes a report as JSON and as one HTML page that needs nothing else: plots beside the tables they show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from jobs.metrics import BY_SCORE, RANKER, PerUser
from jobs.report import plots
from jobs.report.examples import reason_words

JSON, HTML = "report.json", "report.html"
METRICS = (*PerUser.NAMES, "coverage", "gini", "top_1_percent_share")
COMPARED = "recall@20"


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json and report.html."""
    (folder / JSON).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    (folder / HTML).write_text(render(report), encoding="utf-8")


def render(report: Mapping[str, Any]) -> str:
    """The page. Everything from the data is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, size=size, seconds=seconds, reason=reason_words)
    template = environment.get_template("report.html.j2")
    return template.render(
        report=report,
        metrics=METRICS,
        compared=COMPARED,
        methods=methods_of(report["metrics"]),
        stage_facts={stage: facts(values) for stage, values in report["stages"].items()},
        plots={name: Markup(svg) for name, svg in draw(report).items()},
    )


def methods_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Metrics by method: the release's own, then the heuristics, best first."""
    rivals = sorted(metrics["heuristics"].items(), key=lambda item: (-(item[1][COMPARED] or 0.0), item[0]))
    own = {RANKER: {name: metrics[name] for name in METRICS}, BY_SCORE: metrics["by_score"]}
    return {**own, **dict(rivals)}


def draw(report: Mapping[str, Any]) -> dict[str, str]:
    """Every plot of the page; an empty text where there is nothing to show."""
    metrics = report["metrics"]
    bands = [band for band in metrics["bands"] if band["users"]]
    methods, sources = methods_of(metrics), metrics["candidates"]["sources"]
    return {
        "methods": plots.bars(COMPARED, {name: values[COMPARED] for name, values in methods.items()}, RANKER),
        "bands": plots.grouped(
            f"{COMPARED} by friends in the past view",
            [band["friends"] for band in bands],
            {name: [band["methods"][name][COMPARED] for band in bands] for name in methods},
        ),
        "candidates": plots.bars(
            "Hidden friendships among the candidates",
            {"all sources": metrics["candidates"]["recall"]}
            | {name: source["recall"] for name, source in sources.items() if source["per_user"]},
            "all sources",
        ),
        "training": _training(report["stages"].get("encoder", {})),
        "importance": plots.bars(
            "What the ranker looks at", _importance(report["stages"].get("ranker", {})), unit="gain"
        ),
        "costs": plots.bars(
            "Wall time by stage", {cost["stage"]: cost["wall_s"] for cost in report["costs"]}, unit="s"
        ),
    }


def _training(encoder: Mapping[str, Any]) -> str:
    points = encoder.get("curve") or []
    names = sorted({name for point in points for name in point if name != "step"})
    series = {name: [point.get(name) for point in points] for name in names}
    return plots.curves("Training of the encoder", [point["step"] for point in points], series, "step")


def _importance(ranker: Mapping[str, Any]) -> dict[str, float]:
    found = ranker.get("importance") or {}
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:20])


def facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Single values of a stage's metrics, nested ones with dotted names; lists are left to the plots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in facts(value).items()}
        elif not isinstance(value, list | tuple):
            flat[name] = value
    return flat


def number(value: Any) -> str:
    """A value for a cell: four digits for shares, thousands apart, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.4f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} s"


def size(value: float | None) -> str:
    """Bytes in units a person reads."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.2f} GiB"
