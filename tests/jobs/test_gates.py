"""Gates: integrity always refuses, quality refuses only against a served release; each says which and by how much."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.settings import GateSettings, Settings
from jobs.gates import FAULTS, INTEGRITY, Finding, Measured, check

NIGHT = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = Settings(gates=GateSettings(max_recall_drop=0.1, min_coverage=0.9))
INPUTS = {
    "counts": {"users": 50_000, "friendships": 400_000, "affiliations": 90_000, "interactions": 0},
    "rates": {"users with the attribute school": [40_000, 50_000], "closed": [4_000, 20_000]},
    "degrees": [500, 1_500, 3_000, 8_000, 15_000, 14_000, 6_000, 1_800, 200],
}
SCORES = {
    "1": {"lists": 50_000, "percentiles": [at / 10 for at in range(101)]},
    "20": {"lists": 49_000, "percentiles": [at / 50 for at in range(101)]},
}
SOUND: dict[str, Any] = {
    "recall@20": 0.30,
    "intervals": {"recall@20": (0.29, 0.31)},
    "asked_users": 5_000,
    "against_best": {
        "recall@20": {
            "heuristic": "Adamic-Adar",
            "own": 0.3,
            "other": 0.28,
            "ratio": 1.07,
            "ratio_interval": (1.0, 1.1),
        }
    },
    "ranked_share": 1.0,
    "faults": dict.fromkeys(FAULTS, 0),
    "shown": {"coverage": 0.9, "gini": 0.5, "top_1_percent_share": 0.05},
    "profile": {"inputs": INPUTS, "scores": SCORES},
}


def night(days: int = 1, ann: float | None = 0.99, **other: Any) -> Measured:
    return Measured(NIGHT + timedelta(days=days), SOUND | other, ann)


def judged(found: Measured, before: Measured | None = Measured(NIGHT, SOUND, 0.99)) -> list[Finding]:  # noqa: B008
    return check(found, before, SETTINGS)


def inputs(**changed: Any) -> dict[str, Any]:
    return {"inputs": {name: {**INPUTS[name], **changed.get(name, {})} for name in ("counts", "rates")}
            | {"degrees": changed.get("degrees", INPUTS["degrees"])}, "scores": SCORES}  # fmt: skip


def test_a_sound_release_passes_with_and_without_a_served_one() -> None:
    assert judged(night()) == []
    assert judged(night(), None) == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("before", [None, night(0)])
def test_a_fault_in_the_rankings_always_refuses(fault: str, before: Measured | None) -> None:
    (finding,) = judged(night(faults={fault: 3}), before)
    assert finding.refuses
    assert finding.gate == INTEGRITY
    assert "3 " in finding.detail


def test_a_report_that_does_not_speak_of_faults_refuses() -> None:
    assert [(f.gate, f.refuses) for f in judged(night(faults=None), None)] == [(INTEGRITY, True)]


LIMITS = [
    ("coverage", {"ranked_share": 0.5}, "50.0%", "gates.min_coverage is 90.0%"),
    ("recall", {"recall@20": 0.2}, "fell by 33.3%, from 0.3000 to 0.2000", "gates.max_recall_drop is 10.0%"),
    (
        "heuristics",
        {"against_best": {"recall@20": {
            "heuristic": "Adamic-Adar", "own": 0.2, "other": 0.25, "ratio": 0.8, "ratio_interval": (0.75, 0.85)}}},
        "0.80 of that of Adamic-Adar (at most 0.85 by its interval), 0.2000 beside 0.2500",
        "gates.min_against_heuristics is 0.90",
    ),
    ("ann", {"ann": 0.93}, "0.9300", "index.min_recall is 0.95"),
    ("shown", {"shown": {"coverage": 0.05, "gini": 0.5}}, "5.0% of people", "gates.min_shown is 10.0%"),
    ("gini", {"shown": {"coverage": 0.9, "gini": 0.99}}, "0.990", "gates.max_gini is 0.980"),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "changed", "by_how_much", "limit"), LIMITS)
def test_a_missed_gate_says_by_how_much_and_which_setting(
    gate: str, changed: dict[str, Any], by_how_much: str, limit: str
) -> None:
    finding = judged(night(**changed))[0]
    assert (finding.gate, finding.refuses) == (gate, True)
    assert by_how_much in finding.detail
    assert limit in finding.detail


@pytest.mark.parametrize(("gate", "changed"), [case[:2] for case in LIMITS if case[0] != "recall"])
def test_quality_gates_warn_where_no_release_is_served(gate: str, changed: dict[str, Any]) -> None:
    assert [(f.gate, f.refuses) for f in judged(night(**changed), None)] == [(gate, False)]


@pytest.mark.parametrize(("recall", "refused"), [(0.31, False), (0.27, False), (0.269, True), (0.0, True)])
def test_a_drop_of_a_sure_recall_above_the_limit_refuses(recall: float, refused: bool) -> None:
    sure = {"intervals": None}
    found = judged(night(**sure, **{"recall@20": recall}), night(0, **sure))
    assert [f.refuses for f in found] == ([True] if refused else [])
    assert judged(night(**sure, **{"recall@20": recall}), None) == []


def test_a_drop_that_a_few_users_may_explain_is_a_warning() -> None:
    few = {"intervals": {"recall@20": (0.2, 0.4)}, "asked_users": 40}
    (finding,) = judged(night(**few, **{"recall@20": 0.24}), night(0, **few))
    assert not finding.refuses
    assert "40 users are too few to be sure" in finding.detail
    assert judged(night(**few, **{"recall@20": 0.1}), night(0, **few))[0].refuses, "a collapse shows in few users too"


def test_unmeasured_recall_warns_on_a_first_release_and_refuses_after_a_measured_one() -> None:
    unmeasured = {"recall@20": None}
    assert [f.refuses for f in judged(night(**unmeasured), None)] == [False]
    assert [f.refuses for f in judged(night(**unmeasured))] == [True]
    assert [f.refuses for f in judged(night(**unmeasured), night(0, **unmeasured))] == [False]
    assert [f.refuses for f in judged(night(), night(0, **unmeasured))] == [False]


def test_a_heuristic_that_is_better_by_chance_alone_refuses_nothing() -> None:
    close = {
        "recall@20": {"heuristic": "Adamic-Adar", "own": 0.2, "other": 0.25, "ratio": 0.8, "ratio_interval": (0.6, 1)}
    }
    assert judged(night(against_best=close)) == []
    assert judged(night(against_best={})) == []
    assert judged(night(against_best={"recall@20": close["recall@20"] | {"ratio": None, "ratio_interval": None}})) == []


def test_a_release_that_shows_nobody_to_nobody_says_so() -> None:
    (finding,) = judged(night(ranked_share=None))
    assert finding.gate == "coverage"
    assert "nobody" in finding.detail


def test_fewer_people_shown_or_less_evenly_than_in_the_served_release_refuses() -> None:
    (fewer,) = judged(night(shown={"coverage": 0.7, "gini": 0.5}))
    assert (fewer.gate, fewer.refuses) == ("shown", True)
    assert "70.0% of people are among the first 20 of somebody's list, 90.0% in the served release" in fewer.detail
    assert "gates.max_shown_drop is 20.0%" in fewer.detail
    (uneven,) = judged(night(shown={"coverage": 0.9, "gini": 0.65}))
    assert (uneven.gate, uneven.refuses) == ("gini", True)
    assert "0.650, 0.500 in the served release: 0.150 more; gates.max_gini_rise is 0.100" in uneven.detail
    assert judged(night(shown={"coverage": 0.8, "gini": 0.55})) == []


GONE = [
    ({"counts": {"friendships": 200_000}}, "200,000 friendships, 400,000 before"),
    ({"counts": {"friendships": 800_000}}, "800,000 friendships, 400,000 before"),
    ({"counts": {"users": 20_000}}, "20,000 users, 50,000 before"),
    ({"counts": {"affiliations": 0}}, "0 affiliations, 90,000 before"),
    ({"rates": {"users with the attribute school": [0, 50_000]}}, "0.0% users with the attribute school, 80.0% before"),
    ({"rates": {"closed": [1_000, 20_000]}}, "5.0% closed, 20.0% before"),
]


@pytest.mark.parametrize(("changed", "said"), GONE)
def test_inputs_unlike_those_of_the_served_release_refuse(changed: dict[str, Any], said: str) -> None:
    (finding,) = judged(night(profile=inputs(**changed)))
    assert (finding.gate, finding.refuses) == ("inputs", True)
    assert said in finding.detail
    assert "gates.max_input_change allows 0.30 here" in finding.detail


def test_an_attribute_that_is_gone_altogether_refuses_and_a_new_one_does_not() -> None:
    fewer = inputs()
    del fewer["inputs"]["rates"]["users with the attribute school"]
    assert [f.gate for f in judged(night(profile=fewer))] == ["inputs"]
    more = inputs(counts={"interactions": 10_000}, rates={"users with the attribute city": [9, 50_000]})
    assert judged(night(profile=more)) == []


def test_other_numbers_of_friends_refuse() -> None:
    (finding,) = judged(night(profile=inputs(degrees=[500, 1_500, 3_000, 30_000, 8_000, 5_000, 2_000, 0, 0])))
    assert (finding.gate, finding.refuses) == ("inputs", True)
    assert "friends a user are spread otherwise: stability index" in finding.detail
    assert "gates.max_degree_shift allows 0.25" in finding.detail


def test_scores_unlike_those_of_the_served_release_refuse() -> None:
    flat = {rank: {"lists": 50_000, "percentiles": [0.0] * 101} for rank in SCORES}
    found = judged(night(profile={"inputs": INPUTS, "scores": flat}))
    assert [(f.gate, f.refuses) for f in found] == [("scores", True)]
    assert "scores at the first and the last rank are the same; gates.max_score_shift allows" in found[0].detail


def test_a_network_that_grows_passes_and_over_weeks_may_grow_more() -> None:
    degrees = [400, 1_400, 3_000, 8_000, 16_000, 16_000, 7_500, 2_400, 300]
    grown = inputs(counts={"users": 55_000, "friendships": 460_000}, degrees=degrees)
    assert judged(night(profile=grown)) == []
    doubled = inputs(counts={"users": 100_000, "friendships": 900_000})
    assert [f.gate for f in judged(night(profile=doubled))] == ["inputs", "inputs"]
    assert judged(night(days=60, profile=doubled)) == []


def test_a_served_release_without_a_profile_is_not_compared() -> None:
    old = Measured(NIGHT, {name: value for name, value in SOUND.items() if name not in ("profile", "shown")})
    (finding,) = judged(night(), old)
    assert (finding.gate, finding.refuses) == ("inputs", False)
