"""Writes a report as JSON and as one HTML page that needs nothing else: plots beside the tables they show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from jobs.metrics import RANKER, TOP, PerUser
from jobs.report.content import ABLATION_NOTE
from jobs.report.drawings import COMPARED, draw, methods_of, variants_of
from jobs.report.examples import reason_words

JSON, HTML = "report.json", "report.html"
SECTIONS = {
    "quality": "Quality",
    "bands": "By number of friends",
    "diversity": "Exposure and diversity",
    "candidates": "Candidates",
    "ablations": "Without a part",
    "models": "Models",
    "index": "Index",
    "soundness": "Soundness",
    "cost": "Cost",
    "lists": "Some lists",
    "stages": "What each stage measured",
}
METRICS = (*PerUser.NAMES, "coverage", "gini", "top_1_percent_share", f"similarity@{TOP}")


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json and report.html."""
    (folder / JSON).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    (folder / HTML).write_text(render(report), encoding="utf-8")


def render(report: Mapping[str, Any]) -> str:
    """The page. Everything from the data is escaped; what the report of an older version lacks is a dash."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    environment.filters.update(
        number=number, size=size, seconds=seconds, whole=whole, span=span, percent=percent, reason=reason_words
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        report=report,
        metrics=METRICS,
        compared=COMPARED,
        own=RANKER,
        sections=[
            (id, name) for id, name in SECTIONS.items() if id != "ablations" or report["metrics"].get("ablations")
        ],
        ablation_note=ABLATION_NOTE,
        methods=methods_of(report["metrics"]),
        variants=variants_of(report["metrics"]),
        stage_facts={stage: facts(values) for stage, values in report["stages"].items()},
        plots={name: Markup(svg) for name, svg in draw(report).items()},
    )


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
    if _missing(value):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.4f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"


def whole(value: float | None) -> str:
    """A value whose digits after the point say nothing."""
    return "–" if value is None else f"{value:,.0f}"


def _missing(value: Any) -> bool:
    return value is None or isinstance(value, jinja2.Undefined)


def span(interval: Sequence[float] | None) -> str:
    """An interval for a cell."""
    return "–" if _missing(interval) or interval is None else f"{number(interval[0])} to {number(interval[1])}"


def percent(ratio: float | None) -> str:
    """How much more than 1, with its sign."""
    return "–" if ratio is None else f"{100 * (ratio - 1):+.1f} %"


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
