"""Business rules, the last step of every answer: who must not be shown, and how many of one company or school.

A bar drops a person and is named, so that every drop can be counted and explained. A cap demotes: the surplus of
a group goes behind everybody else and comes back only where others run out. Fatigue sinks: who was shown often without
a reaction moves down some places.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from infra.blobs import Ranking, Record
from infra.settings import RulesSettings

CAPPED = ("company", "school")
"""Names of the caps; a blob's group_rules index this tuple."""
SELF, EXCLUDE_PARAMETER, NOT_FOR_USER, DEPARTED = "self", "exclude_parameter", "not_for_user", "departed"
BARS = (SELF, EXCLUDE_PARAMETER, NOT_FOR_USER, DEPARTED)

Bar = Mapping[int, str]
"""People who must not be shown -> the rule that says so. May be large: it is only asked for people, one by one."""
Groups = Sequence[int]
NO_FATIGUE: Mapping[int, int] = {}


@dataclass(slots=True)
class Picked:
    """records: of the ranking, in the order to show. dropped: how many each bar left out, and barred whom all of them.
    demoted: by a cap."""

    records: list[Record]
    dropped: dict[str, int]
    demoted: int
    barred: list[int]


def caps_of(settings: RulesSettings) -> tuple[int, ...]:
    """People of one group among the shown, in the order of CAPPED."""
    return (settings.max_per_company, settings.max_per_school)


def pick(
    ranking: Ranking,
    limit: int,
    bars: Sequence[Bar],
    caps: Sequence[int],
    fatigue: Mapping[int, int] = NO_FATIGUE,
    fatigue_places: int = 0,
) -> Picked:
    """The first `limit` of a ranking that no bar names, those over a cap behind the others.

    fatigue: times a person was shown without a reaction, each worth `fatigue_places` places down the list.
    """
    base = ranking.base
    left = [caps[rule] if rule < len(caps) else len(ranking) for rule in ranking.group_rules]
    chosen: list[Record] = []
    demoted: list[Record] = []
    dropped: dict[str, int] = {}
    barred: list[int] = []
    people: Iterable[tuple[Record, Groups]] = _with_groups(ranking)
    if fatigue and fatigue_places:
        people = _sunk(people, base, fatigue, fatigue_places)
    for record, groups in people:
        person = base + record[0]
        for bar in bars:
            rule = bar.get(person)
            if rule is not None:
                dropped[rule] = dropped.get(rule, 0) + 1
                barred.append(person)
                break
        else:
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
    return Picked(chosen + demoted[: limit - len(chosen)], dropped, len(demoted), barred)


def _with_groups(ranking: Ranking) -> Iterator[tuple[Record, Groups]]:
    codes, end = ranking.group_codes, 0
    for record, count in zip(ranking.items(), ranking.group_counts or repeat(0), strict=False):
        end += count
        yield record, codes[end - count : end] if count else ()


def _sunk(
    people: Iterable[tuple[Record, Groups]], base: int, fatigue: Mapping[int, int], places: int
) -> list[tuple[Record, Groups]]:
    """The list with those who tired the viewer further down; of equal places the one who was better stays first."""
    listed = list(people)
    place = [at + places * fatigue.get(base + record[0], 0) for at, (record, _) in enumerate(listed)]
    return [listed[at] for at in sorted(range(len(listed)), key=lambda at: (place[at], at))]
