"""A canary whose people are reacted to less often than chance explains is not promoted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.model_routes import LOOKUP, Canary, ModelRef, Route
from jobs.online_outcomes import Outcomes, Shown, _p_worse, _rate, outcomes_of
from tests.jobs.test_model_rollout import folder_of
from tests.suites.command import pymk, pymk_json

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
SMALL = ModelRef(name="small", version="2")
ROUTE = Route(canary=Canary(model=SMALL, share=0.5))
Row = tuple[int, int, int, str, str | None]
"""(user, other, days, outcome, model)."""


def lake_of(folder: Path, rows: list[Row]) -> str:
    for name in ("connections", "impressions"):
        (folder / name).mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1], "other_id": [2]}), folder / "connections" / "a.parquet")
    users, others, days, outcomes, models = zip(*rows, strict=True)
    at = pa.array([START_US + int(day * DAY_US) for day in days], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"user_id": users, "other_id": others, "at": at, "outcome": outcomes, "model": pa.array(models)})
    half = len(rows) // 2
    pq.write_table(table.slice(0, half), folder / "impressions" / "a.parquet")
    pq.write_table(table.slice(half), folder / "impressions" / "b.parquet")
    return str(folder)


def planted(stable: float, canary: float, seed: int = 1, users: int = 800) -> list[Row]:
    """Each user is shown a few people, who are accepted at these rates; some users accept more than others."""
    draw = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(users):
        is_canary = ROUTE.canary is not None and ROUTE.canary.has(LOOKUP, user)
        rate = (canary if is_canary else stable) * draw.gamma(2, 0.5)
        for other in range(1000, 1000 + draw.integers(1, 9)):
            model = str(SMALL) if is_canary else None
            rows.append((user, other, 1, "shown", model))
            if draw.random() < rate:
                rows.append((user, other, 2, "accepted", None))
    return rows


def found(tmp_path: Path, rows: list[Row], route: Route = ROUTE) -> Outcomes:
    outcomes = outcomes_of(lake_of(tmp_path / "lake", rows), LOOKUP, route)
    assert outcomes is not None
    return outcomes


def of(outcomes: Outcomes, reaction: str) -> Any:
    return next(one for one in outcomes.differences if one.reaction == reaction)


def test_rates_are_of_the_people_whom_each_variant_showed(tmp_path: Path) -> None:
    model = str(SMALL)
    in_canary, others = (
        [user for user in range(60) if ROUTE.canary.has(LOOKUP, user) is has]  # type: ignore[union-attr]
        for has in (True, False)
    )
    one, two, three = in_canary[0], in_canary[1], others[0]
    rows: list[Row] = [
        (three, 8, 0, "shown", None),  # before the canary
        (three, 8, 3, "accepted", None),
        (one, 5, 1, "shown", model),
        (one, 5, 2, "shown", model),  # again: still one person
        (one, 5, 3, "accepted", None),
        (one, 5, 3, "accepted", None),
        (one, 6, 1, "shown", model),
        (one, 6, 2, "shown", "small@1"),  # another model showed them last
        (one, 6, 3, "accepted", None),
        (two, 5, 2, "shown", None),  # has the canary and was shown by something else
        (two, 5, 3, "accepted", None),
        (three, 5, 2, "shown", None),
        (three, 6, 2, "shown", "release"),
        (three, 6, 3, "invited", model),
        (three, 7, 3, "accepted", None),  # never shown
    ]
    outcomes = found(tmp_path, rows)
    assert (outcomes.users, outcomes.shown) == ({"stable": 1, "canary": 1}, {"stable": 2, "canary": 2})
    accepted, invited = of(outcomes, "accepted"), of(outcomes, "invited")
    assert (accepted.stable.number, accepted.canary.number, accepted.canary.of) == (0, 1, 0.5)
    assert (invited.stable.number, invited.canary.number) == (1, 0)
    assert outcomes.since == "2023-11-15T22:13:20Z"


def test_a_stable_model_of_a_name_is_counted_by_it(tmp_path: Path) -> None:
    route = ROUTE.model_copy(update={"stable": ModelRef(name="small", version="1")})
    rows: list[Row] = [(1, 5, 1, "shown", str(SMALL)), (2, 5, 1, "shown", None), (3, 5, 1, "shown", "small@1")]
    assert found(tmp_path, rows, route).shown == {"stable": 1, "canary": 1}


def test_nothing_is_known_of_a_canary_that_no_impression_names(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "lake", [(1, 5, 1, "shown", None), (1, 5, 2, "accepted", None)])
    assert outcomes_of(lake, LOOKUP, ROUTE) is None


def test_intervals_are_wilsons_where_users_are_shown_one_person_each() -> None:
    """statsmodels' proportion_confint(1, 10, method="wilson")."""
    shown = Shown(np.ones(10), {"accepted": np.eye(10)[0]})
    rate = _rate(shown, "accepted")
    np.testing.assert_allclose((rate.low, rate.high), (0.0178762, 0.4041500), atol=2e-5)


def test_users_who_are_alike_within_make_an_interval_wider() -> None:
    apart = Shown(np.ones(400), {"accepted": np.repeat([1.0, 0.0], 200)})
    alike = Shown(np.full(40, 10.0), {"accepted": np.repeat([10.0, 0.0], 20)})
    spread, wide = (_rate(one, "accepted") for one in (apart, alike))
    assert spread.of == wide.of == 0.5
    np.testing.assert_allclose((wide.high - wide.low) / (spread.high - spread.low), np.sqrt(10), rtol=0.1)


@pytest.mark.parametrize("lift", [0.0, -0.05])
def test_the_chance_of_a_canary_that_is_as_good_is_that_of_drawing_the_users_anew(lift: float) -> None:
    """Beside a permutation test."""
    draw = np.random.default_rng(3)
    x = draw.integers(1, 9, 600).astype(np.float64)
    is_canary = draw.random(600) < 0.3
    y = draw.binomial(x.astype(int), np.clip(0.15 + lift * is_canary, 0, 1) * draw.gamma(2, 0.5, 600).clip(0, 2)) * 1.0

    def apart(chosen: Any) -> float:
        return float(y[chosen].sum() / x[chosen].sum() - y[~chosen].sum() / x[~chosen].sum())

    seen, drawn = apart(is_canary), np.array([apart(draw.permutation(is_canary)) for _ in range(4000)])
    shown = [Shown(x[chosen], {"accepted": y[chosen]}) for chosen in (~is_canary, is_canary)]
    p = _p_worse(shown[0], shown[1], "accepted")
    assert p is not None
    assert abs(p - float((drawn <= seen).mean())) < 0.02


@pytest.mark.parametrize(("canary", "worse"), [(0.1, False), (0.2, False), (0.04, True), (0.0, True)])
def test_a_canary_that_is_accepted_less_often_than_chance_explains_is_worse(
    canary: float, worse: bool, tmp_path: Path
) -> None:
    outcomes = found(tmp_path, planted(0.1, canary))
    assert [one.refuses for one in outcomes.findings()] == [True] * worse


def test_too_little_refuses_nothing_and_is_told(tmp_path: Path) -> None:
    outcomes = found(tmp_path, planted(0.1, 0.0, users=12))
    [finding] = outcomes.findings()
    assert (finding.refuses, finding.detail[:19]) == (False, "too little is known")


def test_promote_shows_the_rates_and_refuses_a_worse_canary_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = f"--store={tmp_path / 'store'}"
    pymk_json("model", "push", str(folder_of(tmp_path / "2", "2")), store)
    pymk_json("model", "route", store, "--canary=small@2", "--share=0.5")
    lake = f"--lake={lake_of(tmp_path / 'lake', planted(0.1, 0.02))}"
    refused = pymk("model", "promote", store, lake)
    assert refused.returncode == 3
    said = " ".join(refused.stderr.split())
    assert "what became of whom small@2 and the stable model showed since 2023-11-15" in said
    assert "outcomes: accepted" in said
    told = pymk_json("model", "promote", store, lake, "--force", "--reason=anyway")
    assert told["stable"] == "small@2"
    rate = told["outcomes"]["rates"]["accepted"]
    assert rate["p_worse"] < 0.01
    assert rate["canary"]["high"] < rate["stable"]["low"]
    assert len(told["warnings"]) == 1
