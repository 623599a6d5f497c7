"""Companies and schools of people, as the caps of `rules` need them: who shares one with whom in a ranked list."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Graph
from infra.settings import RulesSettings
from lookup_api.ranking.groups import kinds_of, memberships
from lookup_api.ranking.rules import CAPPED

UNCAPPED = 255
MOST_GROUPS = 255
"""Groups of one person that are looked at."""

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CappedGroups:
    """Companies and schools of every user: N rows of groups, and the rule of each group (an index of CAPPED)."""

    of_user: Csr
    rule: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, graph: Graph, settings: RulesSettings) -> "CappedGroups":
        """Groups of the attributes and affiliation kinds that the settings call a company or a school."""
        by_name = dict.fromkeys(settings.school_attributes, CAPPED.index("school"))
        by_name |= dict.fromkeys(settings.company_attributes, CAPPED.index("company"))
        kinds = (*graph.kinds, *graph.attributes)
        rule_of_kind = np.array([by_name.get(kind, UNCAPPED) for kind in kinds], np.uint8)
        kind_of_group = kinds_of(graph)
        rule = rule_of_kind[kind_of_group] if len(kinds) else np.zeros(0, np.uint8)
        every = memberships(graph, graph.now)
        kept = rule[every.indices] != UNCAPPED if every.entries else np.zeros(0, bool)
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return cls(Csr(before[every.indptr], every.indices[kept]), rule)


@dataclass(frozen=True)
class LocalGroups:
    """Groups that at least two people of the same list share, numbered within the list.

    counts uint8 [items]: groups of each item. codes int64 [m]: their numbers. per_list int64 [lists]: groups of each
    list. rules uint8 [sum of per_list]. codes_per_list int64 [lists]: how many of the m are a list's.
    """

    counts: npt.NDArray[np.uint8]
    codes: Int64
    per_list: Int64
    rules: npt.NDArray[np.uint8]
    codes_per_list: Int64


def local_groups(groups: CappedGroups, lists: Int64, people: Int32, number_of_lists: int) -> LocalGroups:
    """Groups of ranked lists: item i is person people[i] of list lists[i], lists ascending."""
    starts, ends = groups.of_user.indptr[people], groups.of_user.indptr[people + 1]
    lengths = np.minimum(ends - starts, MOST_GROUPS)
    item = np.repeat(np.arange(len(people)), lengths)
    within = np.arange(len(item)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    group = groups.of_user.indices[starts[item] + within].astype(np.int64)
    size = max(len(groups.rule), 1)
    keys, which, members = np.unique(lists[item] * size + group, return_inverse=True, return_counts=True)
    shared = members >= 2
    list_of = keys[shared] // size
    per_list = np.bincount(list_of, minlength=number_of_lists).astype(np.int64)
    number = np.cumsum(shared) - 1 - (np.cumsum(per_list) - per_list)[keys // size]
    kept = shared[which]
    counts = np.bincount(item[kept], minlength=len(people)).astype(np.uint8)
    codes_per_list = np.bincount(lists[item[kept]], minlength=number_of_lists).astype(np.int64)
    return LocalGroups(counts, number[which[kept]], per_list, groups.rule[keys[shared] % size], codes_per_list)
