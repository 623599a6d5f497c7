"""What a release must keep to be published.

Integrity gates always refuse. Quality gates refuse against the release that is served and warn where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.settings import GateSettings

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
}
"""What each count in the report's `faults` means; any above zero refuses a release."""


INTEGRITY = "integrity"
"""The gate that no force passes."""


@dataclass(frozen=True)
class Refusal:
    """A gate that is not met. refuses: the release must not be published; else it is a warning."""

    gate: str
    detail: str
    refuses: bool


def check(
    metrics: Mapping[str, Any], parent_metrics: Mapping[str, Any] | None, settings: GateSettings
) -> list[Refusal]:
    """The gates that are not met. metrics: of the report stage; parent_metrics: of the served release's report."""
    quality = parent_metrics is not None
    return [
        *_faults(metrics),
        *_ranked_share(metrics, settings.min_coverage, quality),
        *_recall(metrics, parent_metrics, settings.max_recall_drop),
    ]


def _faults(metrics: Mapping[str, Any]) -> list[Refusal]:
    faults = metrics.get("faults")
    if faults is None:
        return [Refusal(INTEGRITY, "the report does not say whether the rankings are sound", True)]
    return [
        Refusal(INTEGRITY, f"rankings: {count:,} {FAULTS.get(name, name)}", True)
        for name, count in faults.items()
        if count
    ]


def _ranked_share(metrics: Mapping[str, Any], least: float, quality: bool) -> list[Refusal]:
    share = metrics.get("ranked_share")
    if share is None:
        return [Refusal("coverage", "nobody has anybody left to be shown: no user has a ranking", False)]
    if share >= least:
        return []
    return [Refusal("coverage", f"{share:.1%} of users have a ranking, gates.min_coverage is {least:.1%}", quality)]


def _recall(metrics: Mapping[str, Any], parent: Mapping[str, Any] | None, allowed: float) -> list[Refusal]:
    now, before = metrics.get(COMPARED), (parent or {}).get(COMPARED)
    if now is None:
        detail = f"{COMPARED} could not be measured: nobody to report on has a held-out friend"
        return [Refusal("quality", detail, before is not None)]
    if before is None:
        return [] if parent is None else [Refusal("quality", f"the served release has no {COMPARED} to compare", False)]
    drop = 1 - now / before if before > 0 else 0.0
    if drop <= allowed:
        return []
    detail = f"{COMPARED} fell by {drop:.1%}, from {before:.4f} to {now:.4f}; gates.max_recall_drop is {allowed:.1%}"
    return [Refusal("quality", detail, True)]
