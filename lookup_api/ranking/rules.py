"""Business rules, the last step of every answer: who must not be shown, and how many of one company or school.

A bar drops a person and is named, so that every drop can be counted and explained. A cap demotes: the surplus of
a group goes behind everybody else and comes back only where others run out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat

from infra.blobs import Ranking, Record
from infra.settings import RulesSettings

CAPPED = ("company", "school")
"""Names of the caps; a blob's group_rules index this tuple."""
SELF, EXCLUDE_PARAMETER, NOT_FOR_USER = "self", "exclude_parameter", "not_for_user"
BARS = (SELF, EXCLUDE_PARAMETER, NOT_FOR_USER)


@dataclass(frozen=True, slots=True)
class Bar:
    """Ids that one rule keeps from being shown."""

    rule: str
    ids: Collection[int]


@dataclass(slots=True)
class Picked:
    """records: of the ranking, in the order to show. dropped: how many each bar left out. demoted: by a cap."""

    records: list[Record]
    dropped: dict[str, int]
    demoted: int


def caps_of(settings: RulesSettings) -> tuple[int, ...]:
    """People of one group among the shown, in the order of CAPPED."""
    return (settings.max_per_company, settings.max_per_school)


def pick(ranking: Ranking, limit: int, bars: Sequence[Bar], caps: Sequence[int]) -> Picked:
    """The first `limit` of a ranking that no bar names, those over a cap behind the others."""
    base, codes = ranking.base, ranking.group_codes
    left = [caps[rule] if rule < len(caps) else len(ranking) for rule in ranking.group_rules]
    chosen: list[Record] = []
    demoted: list[Record] = []
    dropped: dict[str, int] = {}
    barred = {person: bar.rule for bar in reversed(bars) for person in bar.ids}
    end = 0
    for record, count in zip(ranking.items(), ranking.group_counts or repeat(0), strict=False):
        end += count
        if base + record[0] in barred:
            rule = barred[base + record[0]]
            dropped[rule] = dropped.get(rule, 0) + 1
            continue
        groups = codes[end - count : end] if count else ()
        for group in groups:
            if not left[group]:
                demoted.append(record)
                break
        else:
            for group in groups:
                left[group] -= 1
            chosen.append(record)
            if len(chosen) == limit:
                break
    return Picked(chosen + demoted[: limit - len(chosen)], dropped, len(demoted))
