"""Business rules, the last step of every answer: who must not be shown, and how many of one company or school.

A bar drops a person and is named, so that every drop can be counted and explained. A cap demotes: the surplus of
a group goes behind everybody else and comes back only where others run out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from infra.blobs import Ranking
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
    """places: of the ranking, in the order to show. dropped: of the whole ranking, by rule. demoted: by a cap."""

    places: list[int]
    dropped: dict[str, int]
    demoted: int


def caps_of(settings: RulesSettings) -> tuple[int, ...]:
    """People of one group among the shown, in the order of CAPPED."""
    return (settings.max_per_company, settings.max_per_school)


def pick(ranking: Ranking, limit: int, bars: Sequence[Bar], caps: Sequence[int]) -> Picked:
    """The first `limit` of a ranking that no bar names, those over a cap behind the others."""
    barred, dropped = _barred(ranking.ids, bars)
    ids = ranking.ids
    counts, codes = ranking.group_counts or bytes(len(ids)), ranking.group_codes
    left = [caps[rule] if rule < len(caps) else len(ids) for rule in ranking.group_rules]
    chosen: list[int] = []
    demoted: list[int] = []
    end = 0
    for place, count in enumerate(counts):
        end += count
        if barred and ids[place] in barred:
            continue
        groups = codes[end - count : end] if count else ()
        for group in groups:
            if not left[group]:
                demoted.append(place)
                break
        else:
            for group in groups:
                left[group] -= 1
            chosen.append(place)
            if len(chosen) == limit:
                break
    return Picked(chosen + demoted[: limit - len(chosen)], dropped, len(demoted))


def _barred(ids: Sequence[int], bars: Sequence[Bar]) -> tuple[set[int], dict[str, int]]:
    """Who of `ids` any bar names, and how many each bar was the first to name."""
    everybody = set(ids)
    barred: set[int] = set()
    dropped: dict[str, int] = {}
    for bar in bars:
        named = everybody.intersection(bar.ids) - barred
        if named:
            dropped[bar.rule] = len(named)
            barred |= named
    return barred, dropped
