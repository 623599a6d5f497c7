"""Plots of a report as SVG text that scales with the page. matplotlib without a display or global state."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

SIZE = (7.0, 3.4)
OWN, OTHER = "#1668b8", "#9aa7b4"
LINES = ("#1668b8", "#c2571a", "#3f8f4f", "#7b5ea7", "#8a6d3b", "#5c6873", "#b03a6f", "#22a0a8", "#c9b326")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""Beside colour, so that a print without it can be read."""

Numbers = Sequence[float | None]
Interval = tuple[float, float]


def bars(
    title: str,
    values: Mapping[str, float | None],
    own: str = "",
    unit: str = "",
    intervals: Mapping[str, Interval] | None = None,
) -> str:
    """Horizontal bars, the first at the top; `own` is set off by colour. Nothing for values that are all missing."""
    shown = {name: value for name, value in values.items() if value is not None}
    if not shown:
        return ""
    figure, axes = _axes(title, max(1.8, 0.36 * len(shown) + 0.9))
    names, heights = list(shown), list(shown.values())
    axes.barh(names, heights, color=[OWN if name == own or not own else OTHER for name in names])
    known = {name: interval for name, interval in (intervals or {}).items() if name in shown}
    for name, (low, high) in known.items():
        axes.plot([low, high], [names.index(name)] * 2, color="#1c2733", linewidth=1.5)
    for place, (name, value) in enumerate(shown.items()):
        label = f"{_number(value)} ({_ends(known[name])})" if name in known else _number(value)
        end = (max(value, *known.get(name, ())) if name in known else value, place)
        axes.annotate(label, end, (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15 if not known else 0.3)
    axes.set_xlabel(unit)
    return _svg(figure, title)


def points(title: str, values: Mapping[str, float], intervals: Mapping[str, Interval], unit: str) -> str:
    """Dots with their intervals beside a line at zero, the first at the top."""
    if not values:
        return ""
    figure, axes = _axes(title, max(1.8, 0.36 * len(values) + 0.9))
    axes.axvline(0, color=OTHER, linewidth=1)
    for place, (name, value) in enumerate(values.items()):
        axes.plot([value], [place], "o", color=OWN)
        if name in intervals:
            axes.plot(intervals[name], [place] * 2, color=OWN, linewidth=2)
        label = f"{value:+.1f}" + (f" ({_ends(intervals[name], '{:+.1f}')})" if name in intervals else "")
        axes.annotate(label, (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.7)
    axes.margins(x=0.2)
    axes.set_xlabel(unit)
    return _svg(figure, title)


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
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return _svg(figure, title)


def lines(title: str, x: Sequence[float], series: Mapping[str, Numbers], x_unit: str) -> str:
    """Lines on one scale from 0, x logarithmic, each named with its last value."""
    drawn = {name: [v for v in values if v is not None] for name, values in series.items()}
    drawn = {name: values for name, values in drawn.items() if len(values) == len(x)}
    if not drawn:
        return ""
    figure, axes = _axes(title, SIZE[1])
    for place, (name, values) in enumerate(drawn.items()):
        colour, mark, label = LINES[place % len(LINES)], MARKS[place % len(MARKS)], f"{name} ({_number(values[-1])})"
        axes.plot(x, values, color=colour, marker=mark, markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_xticks(list(x), [f"{value:,}" for value in x])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_unit)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return _svg(figure, title)


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
        known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        target.plot(
            *zip(*known, strict=True), color=LINES[place % len(LINES)], label=f"{name} ({_number(known[-1][1])})"
        )
    axes.set_xlabel(x_unit)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return _svg(figure, title)


def speeds(title: str, values: Mapping[str, tuple[float | None, float, int]]) -> str:
    """Queries a second, recall and bytes of each: a disc whose area is its bytes. Nothing for less than two."""
    known = {name: (speed, recall, size) for name, (speed, recall, size) in values.items() if speed}
    if len(known) < 2:
        return ""
    figure, axes = _axes(title, SIZE[1])
    largest = max(size for _, _, size in known.values())
    for place, (name, (speed, recall, size)) in enumerate(known.items()):
        label = f"{name}: {speed:,.0f}/s, {recall:.3f}, {size / 2**20:,.1f} MiB"
        area, colour = 30 + 200 * size / largest, LINES[place % len(LINES)]
        axes.scatter([speed], [recall], s=area, color=colour, alpha=0.7, linewidths=0, label=label)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.25)
    axes.set_xlabel("queries a second, batched, one thread")
    axes.set_ylabel("recall@100")
    return _svg(figure, title)


def cloud(title: str, found: Mapping[str, Any], names: Sequence[str], axis_names: Sequence[str]) -> str:
    """Dots at found["x"], found["y"], one colour for each band in found["band"]."""
    figure, axes = _axes(title, 4.6)
    x, y, band = (np.array(found[name]) for name in ("x", "y", "band"))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(names)))
    for place, name in enumerate(names):
        chosen = band == place
        if chosen.any():
            axes.scatter(x[chosen], y[chosen], s=7, linewidths=0, color=shades[place], label=name, alpha=0.8)
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    figure.legend(fontsize=8, loc="outside lower center", ncols=4, frameon=False, markerscale=2.5)
    return _svg(figure, title)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def _ends(interval: Interval, form: str = "{:.3f}") -> str:
    return " to ".join(form.format(end) for end in interval)


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """SVG without XML prologue, date or fixed size, so that it can stand in a page and shrink with it.

    It says its title to who cannot see it. Names of its groups go: they would be there again in the next plot.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "pymk", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    named = rf'\1 role="img" aria-label="{escape(title)}"'
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', named, svg, count=1)
