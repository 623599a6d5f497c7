"""`pymk events export` and `pymk erase` as an operator types them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.events import Event
from infra.live_facts import open_live_facts
from infra.settings import Settings
from tests.suites.command import pymk, pymk_json


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "lake" / "connections").mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1, -66], "other_id": [2, 3]}), tmp_path / "lake" / "connections" / "a.parquet")
    (tmp_path / "store").mkdir()
    facts = open_live_facts(str(tmp_path / "store" / "live"), Settings())
    facts.record([Event("1", "connected", -66, 4, 10), Event("2", "blocked", 1, 3, 10)])
    facts.close()
    return tmp_path / "lake"


def test_events_are_exported_and_a_person_is_erased_from_both(lake: Path) -> None:
    store = f"--store={lake.parent / 'store'}"
    made = pymk_json("events", "export", store, f"--lake={lake}")
    assert made == {"events": 2, "rows": {"connections": 1, "blocks": 1}, "files_edited": 0}
    erased = pymk_json("erase", "-66", store, f"--lake={lake}")
    assert erased["recorded"]
    assert erased["live_facts"]["facts of others"] == 1
    assert erased["lake"] == {"connections": 2}
    again = pymk("erase", "-66", store).stdout
    assert "erased -66" in again
    assert "live facts: own facts" in again
    assert "heard of" not in again
    assert "heard of 67: is the id right?" in pymk("erase", "67", store).stdout


def test_a_store_that_is_no_folder_needs_a_place_for_live_facts_by_setting(lake: Path) -> None:
    made = pymk_json("events", "export", "--store=s3://bucket/x", f"--lake={lake}", code=2)
    assert "api.facts" in made["error"]["fix"]
    facts = f"--set=api.facts={lake.parent / 'store' / 'live'}"
    assert pymk_json("events", "export", "--store=s3://bucket/x", f"--lake={lake}", facts)["events"] == 2
