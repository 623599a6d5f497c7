"""A night on a damaged lake publishes nothing and says why; a night on a sound one follows as ever."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from infra.errors import GateRefused
from infra.releases import ReleaseStore
from infra.settings import ApiSettings, Settings
from infra.store import open_store
from lookup_api.app import create_app
from tests.conftest import SmallRelease, small_pipeline
from tests.jobs.conftest import EVE
from tests.suites.command import pymk_json
from tests.suites.damage import read_pairs, shuffled

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEXT = "2026-01-02"


@pytest.fixture(scope="module")
def nights(
    small_release: SmallRelease,
    late_eve: dict[str, Any],
    spark: "SparkSession",
    tmp_path_factory: pytest.TempPathFactory,
) -> SmallRelease:
    """Two nights in a row, published in their order; their stages are found."""
    store = tmp_path_factory.mktemp("nights") / "store"
    shutil.copytree(small_release.store, store)
    (store / "CURRENT").unlink()
    shutil.rmtree(store / "releases")
    for as_of in (EVE, small_release.as_of):
        with small_pipeline(small_release.lake, str(store), spark, as_of=as_of) as pipeline:
            made = pipeline.run()
        assert made["published"], "a sound night publishes"
        assert made["overridden"] == []
    return replace(small_release, store=str(store))


def served_ids(store: str, user_id: int) -> tuple[str, list[str]]:
    """The release that the lookup API serves, and whom it shows."""
    app = create_app(store, Settings(api=ApiSettings(poll_s=3600)))
    try:
        answer = orjson.loads(app.test_client().get(f"/v1/users/{user_id}/recommendations").data)
        assert answer["source"] == "precomputed"
        return answer["release"], [item["user_id"] for item in answer["items"]]
    finally:
        app.extensions["release_watch"].stop()


def test_a_night_on_shuffled_friendships_publishes_nothing(
    nights: SmallRelease, spark: "SparkSession", tmp_path: Path
) -> None:
    """Half of the friendships lead to somebody else, and all people keep their number of friends."""
    user_id = int(read_pairs(Path(nights.lake))[1][0])
    releases = ReleaseStore(open_store(nights.store))
    current, before = Path(nights.store, "CURRENT").read_bytes(), served_ids(nights.store, user_id)
    lake = str(shuffled(Path(nights.lake), tmp_path / "lake", share=0.5, keep_degrees=True))
    with small_pipeline(lake, nights.store, spark, as_of=NEXT) as pipeline, pytest.raises(GateRefused) as caught:
        pipeline.run()
    assert caught.value.exit_code == 3
    assert "recall: recall@20 fell by" in caught.value.what
    assert "pairs of friends of one person who are friends too" in caught.value.what

    command = ["stage", "publish", f"--lake={lake}", f"--store={nights.store}", f"--as-of={NEXT}"]
    command += [f"--set={key}={value}" for key, value in nights.flags.items()]
    assert pymk_json(*command, code=3)["error"]["what"] == caught.value.what
    assert Path(nights.store, "CURRENT").read_bytes() == current
    served = releases.current()
    assert served is not None
    releases.verify(served)
    assert served_ids(nights.store, user_id) == before

    made = pymk_json(*command, "--force", "--reason=a drill")
    assert {"recall", "inputs"} <= set(made["overridden"])
    shown = pymk_json("release", "show", f"--store={nights.store}")
    assert shown["release_id"] == made["release_id"]
    assert shown["overrides"][0]["reason"] == "a drill"
    releases.rollback()
    assert served_ids(nights.store, user_id) == before


@pytest.mark.parametrize("keep_degrees", [True, False])
def test_a_shuffled_lake_keeps_its_rows(small_release: SmallRelease, tmp_path: Path, keep_degrees: bool) -> None:
    lake = shuffled(Path(small_release.lake), tmp_path / "lake", 0.5, keep_degrees)
    _, user, other = read_pairs(Path(small_release.lake))
    _, now_user, now_other = read_pairs(lake)
    assert len(now_user) == pytest.approx(len(user), rel=0.01)
    same = np.isin(now_user * 10**9 + now_other, user * 10**9 + other).mean()
    assert 0.4 < same < 0.7
