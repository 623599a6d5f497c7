"""What the lookup API makes of a stored list now: live facts and rules, which it asks anew at each request."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from infra.blobs import Ranking, decode_ranking
from infra.errors import StoreError, UsageError
from infra.graph import Graph
from infra.kv import RANKINGS
from infra.live_facts import BLOCKED, CONNECTED, DISMISSED, ViewerFacts, facts_uri, open_live_facts
from infra.live_tables import FILE
from infra.settings import Settings
from infra.store import folder_or_none
from jobs.explain_delta import knows, serving_rows
from jobs.hourly import KIND
from lookup_api.ranking.rules import CAPPED, SELF, Picked, caps_of, pick

LIMIT = 20
"""People of an answer to a request that names no limit."""
NO_FACTS = ViewerFacts({}, {}, {}, False, 0, 0)
FINAL = ("self", "unknown_or_inactive", "connected", "blocked_or_dismissed")
"""Rules of the night that nothing newer changes."""
DETAILS = {
    CONNECTED: "live facts say that they are connected",
    BLOCKED: "live facts say that one blocked the other",
    DISMISSED: "live facts say that the user dismissed the person",
}


def as_answered(
    made: dict[str, Any], folders: Mapping[str, Path], store_uri: str, settings: Settings, limit: int = LIMIT
) -> dict[str, Any]:
    """What jobs.explain.explain says of a pair, as an answer of `limit` people has it now.

    Adds "live_facts": read, none or why they cannot be read; for somebody stored "stored_rank", with "rank" the place
    after live facts and rules, "of" how many have one, "demoted_by" the caps and fatigue that moved them, and "shown"
    whether the place is within `limit`. settings: those of the server (rules, api.facts, ladder.new_friends, graph).
    """
    user, candidate = int(made["user_id"]), int(made["candidate_id"])
    by = made["left_out_by"]
    with _facts(store_uri, settings, user) as (facts, said):
        made = made | {"live_facts": said}
        if by is not None and by["rule"] in FINAL:
            return made
        if (barred := _barred(facts, user, candidate)) is not None:
            return _left_out_since(made, *barred)
        if by is None and "serving_tables" in folders:
            made = _placed(made, folders, facts, settings, limit)
        if said not in ("read", "none"):
            made["summary"] += f"; {said}"
        new = _new_friends(facts, folders, user)
    if new >= settings.ladder.new_friends:
        made["summary"] += (
            f"; the user has {new} friends whom the release does not know, so the API ranks live if it can"
        )
    return made


@contextmanager
def _facts(store_uri: str, settings: Settings, user: int) -> Iterator[tuple[ViewerFacts, str]]:
    """Live facts of a user while they are open, and what became of reading them. Makes no file where there is none."""
    try:
        uri = facts_uri(settings, store_uri)
    except UsageError:
        yield NO_FACTS, "no live facts are read, as api.facts names none"
        return
    folder = folder_or_none(uri)
    if folder is not None and not (folder / FILE).exists():
        yield NO_FACTS, "none"
        return
    live = open_live_facts(uri, settings)
    with closing(live):
        try:
            found, said = live.of(user), "read"
        except StoreError as error:
            found, said = NO_FACTS, f"live facts cannot be read: {error}"
        yield found, said


def _barred(facts: ViewerFacts, user: int, candidate: int) -> tuple[str, str] | None:
    """Rule and detail of the live fact that keeps the candidate from this user."""
    if facts.viewer_hidden:
        rule = facts.hidden.get(user, "hidden")
        return rule, f"live facts say that {user} is {rule.replace('_', ' ')}, and is shown nobody"
    if (rule := facts.barred.get(candidate, "")) != "":
        return rule, DETAILS[rule]
    if (rule := facts.hidden.get(candidate, "")) != "":
        return rule, f"live facts say that {candidate} is {rule.replace('_', ' ')}"
    return None


def _left_out_since(made: dict[str, Any], rule: str, detail: str) -> dict[str, Any]:
    was = f"stored at rank {made['rank']}" if made["left_out_by"] is None else made["summary"]
    by = {"stage": "live_facts", "rule": rule, "detail": detail}
    summary = f"left out by live_facts, rule {rule}: {detail}; in the release: {was}"
    stored = {"stored_rank": made["rank"], "rank": None, "shown": False}
    return made | stored | {"left_out_by": by, "summary": summary}


def _placed(
    made: dict[str, Any], folders: Mapping[str, Path], facts: ViewerFacts, settings: Settings, limit: int
) -> dict[str, Any]:
    """The place that the rules give somebody who is stored."""
    user, candidate = int(made["user_id"]), int(made["candidate_id"])
    with serving_rows(folders) as tables:
        blob = tables.get(RANKINGS, user)
    if blob is None:
        return made
    ranking, caps, places = decode_ranking(blob), caps_of(settings.rules), settings.rules.fatigue_places
    bars = ({user: SELF}, facts.barred, facts.hidden)
    # All of them: whoever is demoted comes back behind the others, and the first of a longer answer are a shorter one.
    picked = pick(ranking, len(ranking), bars, caps, facts.fatigue, places)
    shown = [ranking.base + record[0] for record in picked.records]
    if candidate not in shown:
        return made
    place, stored = shown.index(candidate) + 1, made["rank"]
    demoted = candidate in shown[len(shown) - picked.demoted :]
    moved = _full_caps(ranking, picked, candidate, caps, _walked(ranking, facts, places)) if demoted else []
    if (times := facts.fatigue.get(candidate, 0)) and places:
        moved.append("fatigue_places")
    found = made | {"stored_rank": stored, "rank": place, "of": len(shown), "demoted_by": moved}
    found["shown"] = place <= limit
    why = f"demoted by {', '.join(moved)} to" if moved else "now at"
    summary = f"stored at rank {stored} with score {made['score']:.4f}; {why} {place} of {len(shown)}"
    if times and places:
        summary += f" (seen {times} times without a reaction)"
    if place == stored and not moved:
        summary = made["summary"].replace("shown at rank", "at rank", 1) if not found["shown"] else made["summary"]
    if not found["shown"]:
        summary += f" (limit {limit}: not shown)"
        rule = moved[0] if moved else "limit"
        found["left_out_by"] = {"stage": "rules", "rule": rule, "detail": f"place {place}; {limit} are shown"}
    return found | {"summary": summary}


def _walked(ranking: Ranking, facts: ViewerFacts, places: int) -> list[int]:
    """Ids in the order in which the rules look at them."""
    ids = list(ranking.ids())
    return [ids[at] for at in sorted(range(len(ids)), key=lambda at: (at + places * facts.fatigue.get(ids[at], 0), at))]


def _full_caps(
    ranking: Ranking, picked: Picked, candidate: int, caps: Sequence[int], walked: Sequence[int]
) -> list[str]:
    """Settings of the caps that better people of the candidate's groups had filled."""
    ends = np.concatenate([[0], np.cumsum(list(ranking.group_counts))]).tolist()
    codes = [list(ranking.group_codes[begin:end]) for begin, end in pairwise(ends)]
    groups = dict(zip(ranking.ids(), codes, strict=True))
    ahead = set(walked[: walked.index(candidate)])
    chosen = picked.records[: len(picked.records) - picked.demoted]
    people = [ranking.base + record[0] for record in chosen]
    held = Counter(group for person in people if person in ahead for group in groups[person])
    rules = {group: ranking.group_rules[group] for group in groups[candidate]}
    full = [rule for group, rule in rules.items() if rule < len(caps) and held[group] >= caps[rule]]
    return sorted({f"max_per_{CAPPED[rule]}" for rule in full})


def _new_friends(facts: ViewerFacts, folders: Mapping[str, Path], user: int) -> int:
    made = {person for person, rule in facts.barred.items() if rule == CONNECTED}
    if not made:
        return 0
    if KIND in folders:
        with serving_rows(folders) as tables:
            made -= knows(tables, user)
    graph = Graph.open(folders["graph"])
    row = int(graph.rows_of(np.array([user], np.int64))[0])
    known = graph.ids[graph.now.connections.row(row)].tolist() if row >= 0 else []
    return len(made.difference(known))
