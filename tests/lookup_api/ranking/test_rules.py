from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.blobs import Ranking, decode_ranking
from infra.settings import RulesSettings
from lookup_api.ranking.capped_groups import CappedGroups, local_groups
from lookup_api.ranking.rules import EXCLUDE_PARAMETER, SELF, Picked, caps_of, pick
from tests.infra.test_blobs import encode_lists
from tests.suites.planted import planted_graph

COMPANY, SCHOOL = 0, 1


def ranking(groups: list[list[int]], rules: list[int]) -> Ranking:
    """Item i has id i; its groups are numbers of `rules`."""
    n = len(groups)
    values = {"ids": list(range(n)), "scores": [float(-i) for i in range(n)], "shape": [0] * n, "count": [0] * n}
    texts = {"shapes": [[0]] if n else [], "dictionary": [{"kind": "near_in_network"}] if n else []}
    return decode_ranking(encode_lists([{**values, **texts, "groups": groups, "group_rules": rules}]).one(0))


def ids(picked: Picked) -> list[int]:
    return [record[0] for record in picked.records]


def test_the_surplus_of_a_company_goes_behind_everybody_else_in_order() -> None:
    found = pick(ranking([[0]] * 7 + [[]] * 2, [COMPANY]), 9, (), (5, 3))
    assert ids(found) == [0, 1, 2, 3, 4, 7, 8, 5, 6]
    assert found.demoted == 2


def test_the_surplus_is_left_out_only_when_others_fill_the_limit() -> None:
    people = ranking([[0]] * 7 + [[]] * 2, [COMPANY])
    assert ids(pick(people, 7, (), (5, 3))) == [0, 1, 2, 3, 4, 7, 8]
    assert ids(pick(people, 8, (), (5, 3))) == [0, 1, 2, 3, 4, 7, 8, 5]


def test_schools_and_companies_are_capped_each_by_their_own_number() -> None:
    found = pick(ranking([[0, 1]] * 5 + [[0]] * 3, [COMPANY, SCHOOL]), 8, (), (5, 3))
    assert ids(found) == [0, 1, 2, 5, 6, 3, 4, 7]


def test_every_drop_is_counted_under_the_first_rule_that_names_it() -> None:
    bars = ({2: SELF}, dict.fromkeys([2, 0, 99], EXCLUDE_PARAMETER))
    found = pick(ranking([[]] * 4, []), 10, bars, (5, 3))
    assert ids(found) == [1, 3]
    assert found.dropped == {SELF: 1, EXCLUDE_PARAMETER: 1}


def test_a_barred_person_takes_no_place_of_a_company() -> None:
    found = pick(ranking([[0]] * 3, [COMPANY]), 3, ({0: EXCLUDE_PARAMETER},), (2, 3))
    assert ids(found) == [1, 2]
    assert found.demoted == 0


def test_an_empty_list_gives_nobody() -> None:
    assert pick(ranking([], []), 20, ({1: SELF},), (5, 3)) == Picked([], {}, 0, [])


@given(
    st.lists(st.sets(st.integers(0, 3), max_size=3), max_size=30),
    st.lists(st.sampled_from([COMPANY, SCHOOL]), min_size=4, max_size=4),
    st.sets(st.integers(0, 30)),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_picks_are_those_of_the_rule_as_written(
    groups: list[set[int]], rules: list[int], excluded: set[int], limit: int, company: int, school: int
) -> None:
    """Beside a transcription of the rule: walk the list, keep who fits every cap, then append the surplus."""
    people = ranking([sorted(of) for of in groups], rules)
    found = pick(people, limit, (dict.fromkeys(excluded, EXCLUDE_PARAMETER),), (company, school))
    caps = {COMPANY: company, SCHOOL: school}
    kept: list[int] = []
    surplus: list[int] = []
    for person in (p for p in range(len(groups)) if p not in excluded):
        full = [g for g in groups[person] if sum(g in groups[k] for k in kept) >= caps[rules[g]]]
        (surplus if full else kept).append(person)
        if len(kept) == limit:
            break
    assert ids(found) == (kept + surplus)[:limit]


def test_caps_come_from_the_settings() -> None:
    assert caps_of(RulesSettings(max_per_company=9, max_per_school=2)) == (9, 2)


def test_only_groups_that_two_of_a_list_share_are_kept_and_are_numbered_within_it() -> None:
    """Beside a count by hand over the planted graph's schools and clubs."""
    graph = planted_graph(60)
    groups = CappedGroups.of(graph, RulesSettings(company_attributes=("club",)))
    lists = np.repeat([0, 1, 2], [20, 1, 25])
    people = np.random.default_rng(3).choice(60, len(lists)).astype(np.int32)
    local = local_groups(groups, lists.astype(np.int64), people, 3)
    codes = np.split(local.codes, np.cumsum(local.counts)[:-1])
    for number in range(3):
        mine = np.flatnonzero(lists == number)
        names = [held(graph, int(person)) for person in people[mine]]
        shared = [[g for g in of if sum(g in other for other in names) >= 2] for of in names]
        assert [len(codes[i]) for i in mine] == [len(of) for of in shared]
        by_code: dict[int, set[Any]] = {}
        for place, of in zip(mine, shared, strict=True):
            for code, group in zip(codes[place], of, strict=True):
                by_code.setdefault(int(code), set()).add(group)
        assert all(len(found) == 1 for found in by_code.values())
        assert local.per_list[number] == len(by_code) == len({g for of in shared for g in of})
    assert set(local.rules.tolist()) == {COMPANY, SCHOOL}


def held(graph: Any, person: int) -> list[tuple[str, int]]:
    clubs = [("club", int(entity)) for entity in graph.now.affiliations.row(person)]
    school = int(graph.attribute_codes[0, person])
    return clubs + ([("school", school)] if school >= 0 else [])


def test_who_was_shown_often_without_a_reaction_sinks_and_others_keep_their_order() -> None:
    people = ranking([[]] * 8, [])
    assert ids(pick(people, 8, (), (5, 3), {0: 1, 2: 2}, 3)) == [1, 0, 3, 4, 5, 6, 7, 2]
    assert ids(pick(people, 2, (), (5, 3), {0: 1, 2: 2}, 3)) == [1, 0]
    assert ids(pick(people, 8, (), (5, 3), {0: 1}, 0)) == list(range(8))


def test_fatigue_moves_people_with_their_groups_and_frees_nobody() -> None:
    people = ranking([[0], [0], [0], []], [COMPANY])
    assert ids(pick(people, 4, (), (2, 3), {0: 5}, 1)) == [1, 2, 3, 0]
    assert ids(pick(people, 4, ({1: SELF},), (2, 3), {0: 5}, 1)) == [2, 3, 0]
