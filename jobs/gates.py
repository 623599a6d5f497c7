"""What a release must keep to be published.

Integrity gates always refuse. Quality gates refuse against the release that is served and warn where there is none to
compare with. docs/gates.md says what each looks at and what to do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from infra.artifacts import Manifest
from infra.settings import GateSettings, Settings
from jobs.drift import Change, degree_shift, input_changes, score_shifts

COMPARED = "recall@20"

FAULTS = {
    "missing": "active users have no ranking although there is somebody to show",
    "unknown_user": "rows are for users whom the graph does not know",
    "unknown_candidate": "rows show people whom the graph does not know",
    "itself": "rows show a user to themselves",
    "friend": "rows show an existing friend",
    "excluded": "rows show a blocked or dismissed person",
    "twice": "rows name a candidate a second time",
    "order": "rows are out of order: ranks must count from 1",
    "score": "rows have a score that is not a number",
}
"""What each count in the report's `faults` means; any above zero refuses a release."""

INTEGRITY = "integrity"
"""The gate that no force passes."""
MOST = 700.0
"""Logarithm of the most that a network may have grown: larger numbers do not fit a float."""
Z = 1.96
"""Standard errors on either side of a mean in a 95 % interval."""


@dataclass(frozen=True)
class Finding:
    """A gate that is not met. refuses: the release must not be published; else it is a warning."""

    gate: str
    detail: str
    refuses: bool

    def __str__(self) -> str:
        return f"{self.gate}: {self.detail}"


@dataclass(frozen=True)
class Measured:
    """What the gates look at of a release. report: metrics of its report. ann_recall: recall@100 of its index."""

    as_of: datetime
    report: Mapping[str, Any]
    ann_recall: float | None = None

    @classmethod
    def of(cls, manifests: Mapping[str, Manifest]) -> "Measured | None":
        """None where the release has no report."""
        if "report" not in manifests:
            return None
        index = manifests["index"].metrics if "index" in manifests else {}
        report = manifests["report"]
        return cls(datetime.fromisoformat(report.as_of), report.metrics, index.get("recall_at_100"))


def check(found: Measured, before: Measured | None, settings: Settings) -> list[Finding]:
    """The gates that are not met. before: the served release, None where there is none to compare with."""
    gates, report, parent = settings.gates, found.report, before.report if before else None
    missed = [
        *_ranked_share(report, gates.min_coverage),
        *_recall(report, parent, gates.max_recall_drop),
        *_heuristics(report, gates.min_against_heuristics),
        *_ann(found.ann_recall, settings.index.min_recall),
        *_shown(report, parent, gates),
        *_gini(report, parent, gates),
        *(_drift(found, before, gates) if before else ()),
    ]
    if before is None:
        missed = [Finding(f.gate, f.detail, False) for f in missed]
    return [*faults("rankings", report), *missed]


def faults(kind: str, metrics: Mapping[str, Any]) -> list[Finding]:
    """The faults that were counted of an artifact's rankings; not to have counted any is one too."""
    found = metrics.get("faults")
    if found is None:
        return [Finding(INTEGRITY, f"nothing says whether its {kind} are sound", True)]
    return [
        Finding(INTEGRITY, f"{kind}: {count:,} {FAULTS.get(name, name)}", True)
        for name, count in found.items()
        if count
    ]


def _ranked_share(metrics: Mapping[str, Any], least: float) -> Iterator[Finding]:
    share = metrics.get("ranked_share")
    if share is None:
        yield Finding("coverage", "nobody has anybody left to be shown: no user has a ranking", False)
    elif share < least:
        yield Finding("coverage", f"{share:.1%} of users have a ranking, gates.min_coverage is {least:.1%}", True)


def _recall(metrics: Mapping[str, Any], parent: Mapping[str, Any] | None, allowed: float) -> Iterator[Finding]:
    """Refuses a drop that is larger than allowed beyond the noise of both measurements."""
    now, before = metrics.get(COMPARED), (parent or {}).get(COMPARED)
    if now is None:
        detail = f"{COMPARED} could not be measured: nobody to report on has a held-out friend"
        yield Finding("recall", detail, before is not None)
    elif parent is not None and before is None:
        yield Finding("recall", f"the served release has no {COMPARED} to compare", False)
    elif parent is not None and before and 1 - now / before > allowed:
        least = (1 - allowed) * before
        noise = Z * float(np.hypot(_standard_error(metrics), (1 - allowed) * _standard_error(parent)))
        detail = (
            f"{COMPARED} fell by {1 - now / before:.1%}, from {before:.4f} to {now:.4f}; "
            f"gates.max_recall_drop is {allowed:.1%}"
        )
        clear = least - now > noise
        few = "" if clear else f"; {metrics.get('asked_users', 0):,} users are too few to be sure"
        yield Finding("recall", detail + few, clear)


def _standard_error(metrics: Mapping[str, Any]) -> float:
    """Of recall@20, from its bootstrap interval; 0 where there is none."""
    interval = (metrics.get("intervals") or {}).get(COMPARED)
    return (interval[1] - interval[0]) / (2 * Z) if interval else 0.0


def _heuristics(metrics: Mapping[str, Any], least: float) -> Iterator[Finding]:
    """Refuses recall below a share of the best heuristic's, where even the upper end of the ratio's interval is."""
    best = (metrics.get("against_best") or {}).get(COMPARED, {})
    ratio, interval = best.get("ratio"), best.get("ratio_interval")
    if ratio is not None and interval and interval[1] < least:
        yield Finding(
            "heuristics",
            f"{COMPARED} is {ratio:.2f} of that of {best['heuristic']} (at most {interval[1]:.2f} by its interval), "
            f"{best['own']:.4f} beside {best['other']:.4f}; gates.min_against_heuristics is {least:.2f}",
            True,
        )


def _ann(recall: float | None, least: float) -> Iterator[Finding]:
    if recall is not None and recall < least:
        detail = f"recall@100 of the index is {recall:.4f}, index.min_recall is {least:.4f}; raise index.target_recall"
        yield Finding("ann", detail, True)


def _shown(metrics: Mapping[str, Any], parent: Mapping[str, Any] | None, gates: GateSettings) -> Iterator[Finding]:
    now, before = ((of or {}).get("shown", {}).get("coverage") for of in (metrics, parent))
    if now is None or metrics.get("ranked_share") is None:
        return
    told = f"{now:.1%} of people are among the first 20 of somebody's list"
    if now < gates.min_shown:
        yield Finding("shown", f"{told}, gates.min_shown is {gates.min_shown:.1%}", True)
    if before and 1 - now / before > gates.max_shown_drop:
        detail = f"{told}, {before:.1%} in the served release: {1 - now / before:.1%} fewer"
        yield Finding("shown", f"{detail}; gates.max_shown_drop is {gates.max_shown_drop:.1%}", True)


def _gini(metrics: Mapping[str, Any], parent: Mapping[str, Any] | None, gates: GateSettings) -> Iterator[Finding]:
    now, before = ((of or {}).get("shown", {}).get("gini") for of in (metrics, parent))
    if now is None:
        return
    told = f"the Gini coefficient of who is shown is {now:.3f}"
    if now > gates.max_gini:
        yield Finding("gini", f"{told}, gates.max_gini is {gates.max_gini:.3f}", True)
    if before is not None and now - before > gates.max_gini_rise:
        detail = f"{told}, {before:.3f} in the served release: {now - before:.3f} more"
        yield Finding("gini", f"{detail}; gates.max_gini_rise is {gates.max_gini_rise:.3f}", True)


def _drift(found: Measured, before: Measured, gates: GateSettings) -> Iterator[Finding]:
    """Limits hold for a week or less between the two; over more weeks a network may move as many times as far."""
    now, was = found.report.get("profile"), before.report.get("profile")
    if not now or not was:
        yield Finding("inputs", "the served release has no profile of its inputs to compare", False)
        return
    weeks = max(1.0, (found.as_of - before.as_of).total_seconds() / 604_800)
    growth = float(np.expm1(min(weeks * np.log1p(gates.max_input_change), MOST)))
    inputs, degrees = input_changes(now["inputs"], was["inputs"]), degree_shift(now["inputs"], was["inputs"])
    yield from _changed("inputs", inputs, growth, "max_input_change")
    yield from _changed("inputs", [degrees], weeks * gates.max_degree_shift, "max_degree_shift")
    scores = score_shifts(now["scores"], was["scores"])
    yield from _changed("scores", scores, weeks * gates.max_score_shift, "max_score_shift")


def _changed(gate: str, changes: Any, allowed: float, setting: str) -> Iterator[Finding]:
    for change in changes:
        if change.size > allowed:
            yield Finding(gate, f"{_told(change, setting)}; gates.{setting} allows {allowed:.2f} here", True)


def _told(change: Change, setting: str) -> str:
    if np.isinf(change.size):
        return change.detail
    if setting == "max_input_change":
        return f"{change.detail}: {change.size:.0%} off beyond chance"
    return f"{change.detail}: stability index {change.size:.2f}"
