"""`pymk key` as an operator types it."""

from pathlib import Path

from infra.key_ring import KeyRing
from tests.suites.command import pymk, pymk_json


def test_a_key_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    store = f"--store={tmp_path}"
    assert pymk_json("key", "list", store) == {"keys": []}
    made = pymk_json("key", "create", store, "--name=mobile", "--scope=events,read", "--expires-days=30")
    ring = KeyRing(str(tmp_path))
    assert ring.look()
    assert ring.scopes(made["key"]) == {"read", "events"}

    listed = pymk("key", "list", store, "--json").stdout
    assert made["key"] not in listed
    assert made["key_id"] in listed
    printed = pymk("key", "create", store).stdout
    assert "the store's first" not in printed
    [text] = [line for line in printed.splitlines() if line.startswith("pymk_")]
    ring.look()
    assert ring.scopes(text) == {"read"}

    revoked = pymk_json("key", "revoke", made["key_id"], store)
    assert revoked["revoked_at"]
    ring.look()
    assert (ring.scopes(made["key"]), ring.scopes(text)) == (None, {"read"})


def test_what_is_wrong_with_a_key_is_said(tmp_path: Path) -> None:
    store = f"--store={tmp_path}"
    assert "write: no scope" in pymk_json("key", "create", store, "--scope=read,write", code=2)["error"]["what"]
    assert "`pymk key list`" in pymk_json("key", "revoke", "0" * 12, store, code=1)["error"]["fix"]
    assert pymk_json("key", "list", store) == {"keys": []}


def test_who_makes_the_first_key_is_told_what_it_closes_and_how_to_undo_that(tmp_path: Path) -> None:
    store = f"--store={tmp_path}"
    made = pymk("key", "create", store)
    assert len(made.stdout.split()) == 1, "a script takes what is printed for the key"
    printed = made.stderr
    assert "the API asks everybody for a key" in printed
    assert "delete keys.json" in printed
    assert KeyRing(str(tmp_path)).look()
    (tmp_path / "keys.json").unlink()
    restarted = KeyRing(str(tmp_path))
    assert restarted.look()
    assert restarted.empty()
