"""`pymk events export` and `pymk erase` as an operator types them."""

import io
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import PymkError
from infra.events import Event
from infra.live_facts import open_live_facts
from infra.settings import Settings
from jobs.cli_events import erase
from jobs.cli_output import Output
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
    assert "Releases that are kept" in again


def test_an_id_that_nothing_knows_is_refused_unless_that_is_said(lake: Path) -> None:
    store = f"--store={lake.parent / 'store'}"
    refused = pymk_json("erase", "67", store, code=2)
    assert "67: no release or live fact names this id" in refused["error"]["what"]
    assert "--unknown" in refused["error"]["fix"]
    assert "--lake" in refused["error"]["fix"]
    assert "row of the lake" in pymk_json("erase", "67", store, f"--lake={lake}", code=2)["error"]["what"]
    assert not (lake.parent / "store" / "erasures.json").exists()
    said = pymk("erase", "67", store, "--unknown").stdout
    assert "heard of 67: the erasure is recorded" in said
    assert "Releases that are kept" not in said
    assert pymk_json("erase", "67", store)["known"], "it was erased before"
    assert pymk_json("erase", "2", store, f"--lake={lake}")["lake"] == {"connections": 1}


@pytest.mark.parametrize(("answer", "erased"), [("n\n", False), ("y\n", True)])
def test_at_a_terminal_it_asks_first(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, erased: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("jobs.cli_events.output", Output())
    with nullcontext() if erased else pytest.raises(PymkError, match="-66: nothing was erased"):
        erase(-66, str(lake.parent / "store"))
    assert "Erase -66?" in capsys.readouterr().err
    assert (lake.parent / "store" / "erasures.json").exists() is erased


def test_a_store_that_is_no_folder_needs_a_place_for_live_facts_by_setting(lake: Path) -> None:
    made = pymk_json("events", "export", "--store=s3://bucket/x", f"--lake={lake}", code=2)
    assert "api.facts" in made["error"]["fix"]
    facts = f"--set=api.facts={lake.parent / 'store' / 'live'}"
    assert pymk_json("events", "export", "--store=s3://bucket/x", f"--lake={lake}", facts)["events"] == 2
