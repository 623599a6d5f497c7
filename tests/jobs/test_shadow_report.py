"""The report of shadows tells what a brute-force look at the same scores tells."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import CorruptArtifact
from infra.shadow_files import key_of
from infra.store import ObjectStore, open_store
from jobs.shadow_report import Compared, compare
from lookup_api.shadow_log import Row, ShadowLog
from tests.jobs.test_model_rollout import folder_of
from tests.suites.command import pymk, pymk_json

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/shadows", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


def scored(name: str, scores: Any, variant: str = "shadow", ms: float = 1.0, outcome: str = "answered") -> Row:
    return Row(name, "1", variant, outcome, ms, None if scores is None else np.float32(scores), {"walk": np.zeros(2)})


def kept(store: ObjectStore, requests: list[list[Row]], at: datetime = NOW) -> None:
    log = ShadowLog(lambda: store, 60, 1 << 30, clock=at.timestamp)
    for rows in requests:
        log.add("feed", int(at.timestamp() * 1e6), rows)
    log.dropped("feed", "small@1", "full", 7)
    log.roll(all_of_them=True)


def pairwise(one: Any, other: Any) -> float:
    """Kendall's tau of scores without ties, as it is defined."""
    pairs = list(combinations(range(len(one)), 2))
    return float(np.mean([np.sign((one[i] - one[j]) * (other[i] - other[j])) for i, j in pairs]))


def test_ranks_are_compared_request_by_request(store: ObjectStore) -> None:
    draw = np.random.default_rng(1)
    lists = [(draw.normal(size=n), draw.normal(size=n)) for n in (4, 20, 50)]
    kept(store, [[scored("big", one, "stable"), scored("small", other)] for one, other in lists])
    told = compare(store, "feed", NOW - DAY, (3, 10))
    [pair] = told["compared"]
    assert (pair["shadow"], pair["answered"], pair["requests"]) == ("small@1", "big@1", 3)
    shares = [
        [len({*np.argsort(-one)[:k]} & {*np.argsort(-other)[:k]}) / min(k, len(one)) for one, other in lists]
        for k in (3, 10)
    ]
    np.testing.assert_allclose(list(pair["overlap"].values()), np.mean(shares, axis=1), rtol=1e-6)
    np.testing.assert_allclose(pair["kendall"], np.mean([pairwise(*both) for both in lists]), rtol=1e-6)
    ranks = [[np.argsort(np.argsort(one)) for one in both] for both in lists]
    spearman = [1 - 6 * ((a - b) ** 2).sum() / (len(a) * (len(a) ** 2 - 1)) for a, b in ranks]
    np.testing.assert_allclose(pair["spearman"], np.mean(spearman), rtol=1e-6)


def test_ties_and_lists_of_one_are_no_trouble() -> None:
    compared = Compared({5: []})
    for one, other in (([1.0], [2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, 2.0], [2.0, 2.0])):
        compared.add(np.float32(one), np.float32(other))
    assert (compared.requests, compared.kendall, compared.spearman) == (2, [1.0, 0.0], [1.0, 0.0])


def test_outcomes_times_and_drops_are_of_all_requests(store: ObjectStore) -> None:
    rows = [[scored("big", [1, 2], "stable"), scored("small", [1, 2], ms=number)] for number in range(1, 101)]
    kept(store, [*rows, [scored("big", [1, 2], "canary"), scored("small", None, outcome="failed", ms=900)]])
    kept(store, [[scored("big", [1, 2], "stable"), scored("old", [1, 2])]], NOW - 3 * DAY)
    told = compare(store, "feed", NOW - DAY, (5,))
    big, small = told["models"]
    assert (big["model"], big["variants"], big["outcomes"]) == ("big@1", ["canary", "stable"], {"answered": 101})
    assert (small["outcomes"], small["dropped"]) == ({"answered": 100, "failed": 1}, {"full": 7})
    np.testing.assert_allclose(list(small["ms"].values()), np.percentile(np.arange(1, 101), [50, 95, 99]))
    assert (told["files"], len(told["compared"])) == (1, 1)


def test_a_file_that_cannot_be_read_is_named(store: ObjectStore) -> None:
    store.put(key_of("feed", NOW, "a"), b"no Parquet")
    with pytest.raises(CorruptArtifact, match=r"a\.parquet: cannot be read"):
        compare(store, "feed", NOW - DAY, (5,))


def test_the_command_shows_both_tables_and_how_far_scores_moved(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    at = f"--store={store.uri}"
    pymk_json("model", "push", str(folder_of(tmp_path / "1")), at)
    assert "no shadow scored" in pymk("model", "report", "feed", at).stdout
    draw = np.random.default_rng(2)
    kept(store, [[scored("release", draw.normal(size=40), "stable"), scored("small", np.full(40, 1e3))]] * 20)
    told = pymk_json("model", "report", "feed", at, "--best=3")
    assert list(told["compared"][0]["overlap"]) == ["3"]
    drift = {one["model"]: one["drift"] for one in told["models"]}
    assert drift["release@1"] is None
    assert drift["small@1"] > 2
    assert told["compared"][0]["ks"] == 1
    shown = pymk("model", "report", "feed", at).stdout
    for text in ("20 answered", "7 full", "same of 20", "Kendall"):
        assert text in shown
