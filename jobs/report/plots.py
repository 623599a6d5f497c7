"""Plots of a report as SVG text that scales with the page. matplotlib without a display or global state."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE = (7.0, 3.4)
OWN, OTHER = "#1668b8", "#9aa7b4"
LINES = ("#1668b8", "#c2571a", "#3f8f4f", "#7b5ea7", "#8a6d3b", "#5c6873")

Numbers = Sequence[float | None]


def bars(title: str, values: Mapping[str, float | None], own: str = "", unit: str = "") -> str:
    """Horizontal bars, the first at the top; `own` is set off by colour. Nothing for values that are all missing."""
    shown = {name: value for name, value in values.items() if value is not None}
    if not shown:
        return ""
    figure, axes = _axes(title, max(1.8, 0.36 * len(shown) + 0.9))
    names, heights = list(shown), list(shown.values())
    drawn = axes.barh(names, heights, color=[OWN if name == own or not own else OTHER for name in names])
    axes.bar_label(drawn, fmt=lambda value: _number(value), padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    return _svg(figure)


def grouped(title: str, groups: Sequence[str], series: Mapping[str, Numbers], unit: str = "") -> str:
    """Vertical bars: one group a band, one colour a method; missing values leave a gap."""
    if not groups or not series:
        return ""
    figure, axes = _axes(title, 3.6)
    width = 0.8 / len(series)
    for place, (name, values) in enumerate(series.items()):
        at = [i + (place - (len(series) - 1) / 2) * width for i in range(len(groups))]
        axes.bar(at, [value or 0.0 for value in values], width, label=name, color=LINES[place % len(LINES)])
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.legend(fontsize=8, ncols=2, frameon=False)
    return _svg(figure)


def curves(title: str, x: Sequence[float], series: Mapping[str, Numbers], x_unit: str) -> str:
    """Lines over x, each on a scale of its own height, named with its last value."""
    drawn = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not drawn or len(x) < 2:
        return ""
    figure, axes = _axes(title, SIZE[1])
    for place, (name, values) in enumerate(drawn.items()):
        target = axes if place == 0 else axes.twinx()
        if place:
            target.set_yticks([])
            target.set_frame_on(False)
        points = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        target.plot(
            *zip(*points, strict=True), color=LINES[place % len(LINES)], label=f"{name} ({_number(points[-1][1])})"
        )
    axes.set_xlabel(x_unit)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return _svg(figure)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _svg(figure: Figure) -> str:
    """SVG without XML prologue, date or fixed size, so that it can stand in a page and shrink with it."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "pymk", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
