"""Bars of inactive users: rows go among those of others, and a real night keeps who comes back from whom it must."""

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.artifacts import open_artifact
from infra.blobs import decode_bars
from infra.events import Event
from infra.releases import ReleaseStore
from infra.settings import ApiSettings, LadderSettings
from infra.store import open_store
from jobs.inactive_bars import BarRows
from tests.conftest import SmallRelease
from tests.suites.served_store import app_on

BARRED = {-(2**63): [1, 2**63 - 1], 5: [], 7: [-3], 9: [4, 5, 6]}


def rows_of(barred: dict[int, list[int]]) -> BarRows:
    pairs = [(user, other) for user, others in sorted(barred.items()) for other in others]
    user, other = np.array(pairs, np.int64).reshape(-1, 2).T
    return BarRows.of(user, np.ascontiguousarray(other), np.array(sorted(barred), np.int64))


def told(rows: BarRows) -> dict[int, list[int]]:
    return {key: decode_bars(rows.blobs.one(place)) for place, key in enumerate(rows.keys.tolist())}


@pytest.mark.parametrize("key", [-(2**63), 5, 6, 10])
def test_rows_cut_at_a_key_and_put_together_again_are_the_same(key: int) -> None:
    below, above = rows_of(BARRED).taken_below(key)
    assert told(below) == {user: others for user, others in BARRED.items() if user < key}
    assert told(above) == {user: others for user, others in BARRED.items() if user >= key}
    assert told(above.merged(below)) == told(below.merged(above)) == BARRED


def test_rows_of_different_users_are_put_in_order() -> None:
    odd, even = rows_of({1: [2], 3: [], 9: [1]}), rows_of({0: [8], 2: [3, 4], 10: []})
    merged = even.merged(odd)
    assert merged.keys.tolist() == [0, 1, 2, 3, 9, 10]
    assert told(merged) == told(odd) | told(even)


def test_a_graph_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert len(BarRows.open(tmp_path).keys) == 0


def test_who_comes_back_after_a_real_night_is_shown_nobody_whom_the_lake_keeps_away(
    small_release: SmallRelease, tmp_path: Path
) -> None:
    """They are reactivated by events alone, and make a friend of whom they have friends in common."""
    store = open_store(small_release.store)
    release = ReleaseStore(store).current()
    assert release is not None
    table = pq.read_table(
        open_artifact(store, "graph", release.artifacts["graph"].artifact_id).path / "inactive_bars.parquet"
    )
    user, other = table["user_id"].to_numpy(), table["other_id"].to_numpy()
    # However slow this machine is, lists are ranked live: there is time, and of the threads but one is ever at work.
    patient = LadderSettings(deadline_ms=60_000, live_budget_ms=60_000, ann_budget_ms=60_000)
    app = app_on(store, api=ApiSettings(poll_s=3600, threads=4, facts=str(tmp_path / "live")), ladder=patient)
    parts, asked = app.extensions["pymk"], {}
    try:
        with parts.watch.hold() as served:
            popular = served.popular.ids()
        for person in np.unique(user).tolist():
            kept_away = set(other[user == person].tolist())
            friend = next(one for one in popular if one not in kept_away)
            now = time.time_ns() // 1000
            answers = []
            for number, (kind, to) in enumerate([("reactivated", None), ("unbanned", None), ("connected", friend)]):
                parts.facts.record([Event(f"{person}-{number}", kind, person, to, now)])
                answers.append(app.test_client().get(f"/v1/users/{person}/recommendations?limit=100").json)
            for answer in answers:
                shown = {int(item["user_id"]) for item in answer["items"]}
                assert shown
                assert not shown & kept_away
                asked.setdefault(answer["source"], set()).update(kept_away & set(popular))
    finally:
        parts.stop()
    assert set(asked) == {"popular", "live"}
    assert all(asked.values()), "some whom they must not be shown are popular"
