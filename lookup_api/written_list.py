"""Lists made while a request waits, as blobs like those of the night: decoded, ruled and kept in the same way."""

from collections import Counter
from collections.abc import Sequence

from infra.ranking_blob import encode_ranking
from lookup_api.ranking.rules import CAPPED

MUTUAL = '{"kind":"mutual_connections"}'
NEAR = '{"kind":"near_in_network"}'
STRICTEST = CAPPED.index("school")
"""The cap of groups of which the release does not say what they are."""
MOST_GROUPS = 255
"""Groups of one list that are capped: those shared by most."""


def written_list(
    ids: Sequence[int],
    scores: Sequence[float],
    reasons: Sequence[Sequence[str]],
    counts: Sequence[int],
    groups: Sequence[Sequence[int]],
    group_rules: bytes,
) -> bytes:
    """People best first. groups: companies and schools of each; group_rules: the cap of every group of the release."""
    holders = Counter(group for of in groups for group in set(of))
    shared = [group for group, many in holders.most_common(MOST_GROUPS) if many > 1]
    number = {group: at for at, group in enumerate(shared)}
    local = [[number[group] for group in dict.fromkeys(of) if group in number] for of in groups]
    rules = [group_rules[group] if group < len(group_rules) else STRICTEST for group in shared]
    return encode_ranking(ids, scores, reasons, counts, local, rules)
