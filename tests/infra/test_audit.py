"""What is done by hand is kept with its reason, and told from what may not have ended."""

from pathlib import Path

import pytest

from infra.audit import deeds, recorded
from infra.errors import CorruptArtifact
from infra.store import open_store


def test_a_deed_is_kept_with_who_why_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_rollback/manual__1 by ada")
    store = open_store(str(tmp_path))
    with recorded(store, "rollback", "lists are empty") as deed:
        deed["release_id"] = "R"
    (kept,) = deeds(store)
    assert (kept.action, kept.by, kept.reason, kept.done) == (
        "rollback",
        "pymk_rollback/manual__1 by ada",
        "lists are empty",
        True,
    )
    assert kept.result == {"release_id": "R"}


def test_other_files_are_no_deeds_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with recorded(store, "rollback", None):
        store.put("audit/2026-01-01-rollback-notes.md", b"what we saw")
    (kept,) = deeds(store)
    assert deeds(store, "clean") == []
    assert deeds(store, "rollback") == [kept]
    (key,) = [info.key for info in store.list("audit/") if info.key.endswith(".json")]
    store.put(key, b"{}")
    with pytest.raises(CorruptArtifact, match=f"{key}: not a record of a deed"):
        deeds(store)


def test_a_deed_that_fails_stays_as_one_of_unknown_end(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(ValueError, match="no"), recorded(store, "clean", None):
        raise ValueError("no")
    (kept,) = deeds(store)
    assert not kept.done
    assert kept.by
