"""Gates: integrity always refuses, quality refuses only against a served release."""

import pytest

from infra.settings import GateSettings
from jobs.gates import FAULTS, check

SETTINGS = GateSettings(max_recall_drop=0.1, min_coverage=0.9)
SOUND = {"recall@20": 0.30, "ranked_share": 1.0, "faults": dict.fromkeys(FAULTS, 0)}


def test_a_sound_release_passes_with_and_without_a_served_one():
    assert check(SOUND, None, SETTINGS) == []
    assert check(SOUND, SOUND, SETTINGS) == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("parent", [None, SOUND])
def test_a_fault_in_the_rankings_always_refuses(fault, parent):
    (refusal,) = check(SOUND | {"faults": {fault: 3}}, parent, SETTINGS)
    assert refusal.refuses
    assert refusal.gate == "integrity"
    assert "3 " in refusal.detail


def test_a_report_that_does_not_speak_of_faults_refuses():
    assert [r.refuses for r in check({"recall@20": 0.3, "ranked_share": 1.0}, None, SETTINGS)] == [True]


@pytest.mark.parametrize(("recall", "refused"), [(0.31, False), (0.27, False), (0.269, True), (0.0, True)])
def test_a_drop_of_recall_above_the_limit_refuses_against_the_served_release(recall, refused):
    found = check(SOUND | {"recall@20": recall}, SOUND, SETTINGS)
    assert [r.refuses for r in found] == ([True] if refused else [])
    assert check(SOUND | {"recall@20": recall}, None, SETTINGS) == []


def test_unmeasured_recall_warns_on_a_first_release_and_refuses_after_a_measured_one():
    unmeasured = SOUND | {"recall@20": None}
    assert [r.refuses for r in check(unmeasured, None, SETTINGS)] == [False]
    assert [r.refuses for r in check(unmeasured, SOUND, SETTINGS)] == [True]
    assert [r.refuses for r in check(unmeasured, unmeasured, SETTINGS)] == [False]
    assert [r.refuses for r in check(SOUND, unmeasured, SETTINGS)] == [False]


def test_too_few_ranked_users_warns_first_and_refuses_later():
    few = SOUND | {"ranked_share": 0.5}
    assert [(r.gate, r.refuses) for r in check(few, None, SETTINGS)] == [("coverage", False)]
    assert [(r.gate, r.refuses) for r in check(few, SOUND, SETTINGS)] == [("coverage", True)]


def test_a_release_that_shows_nobody_to_nobody_says_so():
    (finding,) = check(SOUND | {"ranked_share": None}, SOUND, SETTINGS)
    assert finding.gate == "coverage"
    assert "nobody" in finding.detail
