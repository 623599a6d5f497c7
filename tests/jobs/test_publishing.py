"""Publishing: gates decide, force passes quality alone, and who passed what stays in the release."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import Manifest, artifact_id, write_artifact
from infra.errors import CorruptArtifact, GateRefused
from infra.releases import Release, ReleaseStore, describe
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from infra.times import format_time
from jobs.publishing import publish_release
from tests.jobs.test_cli import pymk, pymk_json
from tests.jobs.test_gates import NIGHT, SOUND

WORSE = {"recall@20": 0.1, "intervals": {"recall@20": [0.09, 0.11]}}
FAULTY = {"faults": {"friend": 7}}


def make_night(store: ObjectStore, day: int, **metrics: Any) -> Release:
    """A release of a graph, an index and a report with such metrics."""
    as_of, parents, made = NIGHT + timedelta(days=day), {"lake": f"{day}"}, {}
    told = {"graph": {}, "index": {"recall_at_100": metrics.pop("ann", 0.99)}, "report": SOUND | metrics}
    for kind, measured in told.items():
        folder = store.scratch()
        (folder / "data").mkdir()
        (folder / "data" / "part").write_bytes(kind.encode())
        wanted = artifact_id(kind, parents, {}, as_of, "1")
        manifest = Manifest(kind, wanted, format_time(as_of), parents, {}, 1, "1", 1, f"{kind}{day}", (), measured)
        made[kind] = write_artifact(store, folder, manifest)
        parents = {kind: wanted}
    return ReleaseStore(store).make(made)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def publish(store: ObjectStore, release: Release, **options: Any) -> dict[str, Any]:
    return publish_release(ReleaseStore(store), release, Settings(), lambda line: None, **options)


def current(store: ObjectStore) -> str | None:
    return ReleaseStore(store).current_id()


def test_a_sound_night_follows_a_sound_night(store: ObjectStore) -> None:
    for day in range(2):
        release = make_night(store, day)
        made = publish(store, release)
        assert (made["published"], made["warnings"], made["overridden"]) == (True, [], [])
        assert current(store) == release.release_id


def test_the_first_release_is_published_with_warnings_and_again_without_complaint(store: ObjectStore) -> None:
    release = make_night(store, 0, ann=0.5)
    for _ in range(2):
        made = publish(store, release)
        assert made["published"]
        assert [warning.partition(":")[0] for warning in made["warnings"]] == ["ann"]
    assert ReleaseStore(store).get(release.release_id).overrides == ()


def test_a_worse_night_leaves_current_alone_and_says_how_to_pass(store: ObjectStore) -> None:
    first, worse = make_night(store, 0), make_night(store, 1, **WORSE)
    publish(store, first)
    with pytest.raises(GateRefused) as caught:
        publish(store, worse)
    assert caught.value.exit_code == 3
    assert f"{worse.release_id} is not published: recall: recall@20 fell by 66.7%" in caught.value.what
    assert f"`pymk release publish {worse.release_id} --force --reason TEXT`" in caught.value.fix
    assert current(store) == first.release_id
    assert ReleaseStore(store).get(worse.release_id).overrides == ()


def test_every_gate_that_refused_is_named(store: ObjectStore) -> None:
    publish(store, make_night(store, 0))
    with pytest.raises(GateRefused, match=r"recall: .*; ann: .*; gini: "):
        publish(store, make_night(store, 1, ann=0.1, shown={"coverage": 0.9, "gini": 0.7}, **WORSE))


def test_force_passes_quality_and_is_recorded_with_its_reason(store: ObjectStore) -> None:
    first, worse = make_night(store, 0), make_night(store, 1, ann=0.5, **WORSE)
    publish(store, first)
    made = publish(store, worse, force=True, reason="a holiday: nobody is online")
    assert made["published"]
    assert made["overridden"] == ["recall", "ann"]
    assert current(store) == worse.release_id
    (override,) = ReleaseStore(store).get(worse.release_id).overrides
    assert override.reason == "a holiday: nobody is online"
    assert override.replaced == first.release_id
    assert [passed["gate"] for passed in override.gates] == ["recall", "ann"]
    assert "fell by 66.7%" in override.gates[0]["detail"]
    publish(store, worse, force=True)
    assert len(ReleaseStore(store).get(worse.release_id).overrides) == 1, "nothing was passed over the second time"


def test_an_override_changes_nothing_else_of_the_release(store: ObjectStore) -> None:
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, **WORSE)
    assert b"overrides" not in store.get(f"releases/{worse.release_id}.json").data
    publish(store, worse, force=True)
    releases = ReleaseStore(store)
    noted = releases.get(worse.release_id)
    assert replace(noted, overrides=()) == worse
    assert make_night(store, 1, **WORSE) == noted, "a run that finds its release keeps the record"
    releases.verify(noted)
    assert describe(noted)["overrides"][0]["gates"][0]["gate"] == "recall"
    releases.rollback()
    assert releases.get(worse.release_id) == noted


@pytest.mark.parametrize("force", [False, True])
def test_nothing_passes_integrity(store: ObjectStore, force: bool) -> None:
    faulty = make_night(store, 0, **FAULTY)
    with pytest.raises(GateRefused, match=r"7 rows show an existing friend.*find the fault"):
        publish(store, faulty, force=force)
    assert current(store) is None
    assert ReleaseStore(store).get(faulty.release_id).overrides == ()


def test_a_night_of_before_is_not_compared_with_a_newer_one(store: ObjectStore) -> None:
    newer, older = make_night(store, 5), make_night(store, 1, **WORSE)
    publish(store, newer)
    made = publish(store, older)
    assert not made["published"]
    assert "a newer release is served" in made["said"]
    assert current(store) == newer.release_id


def test_a_served_release_whose_artifacts_are_gone_is_replaced_by_force(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    store.delete_folder(f"report/{first.artifacts['report'].artifact_id}/")
    with pytest.raises(Exception, match="is gone"):
        publish(store, second)
    assert publish(store, second, force=True)["published"]


def test_a_damaged_file_of_the_served_release_tells_how_to_replace_it(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    store.put(f"releases/{first.release_id}.json", b"{")
    with pytest.raises(CorruptArtifact, match=rf"`pymk release publish {second.release_id} --force`"):
        publish(store, second)
    assert publish(store, second, force=True)["published"]


def test_the_command_refuses_with_exit_code_3_and_shows_what_was_passed_over(store: ObjectStore) -> None:
    first, worse = make_night(store, 0), make_night(store, 1, **WORSE)
    publish(store, first)
    command = ["release", "publish", worse.release_id, f"--store={store.uri}"]
    refused = pymk_json(*command, code=3)["error"]
    assert "gates.max_recall_drop is 10.0%" in refused["what"]
    assert current(store) == first.release_id
    made = pymk_json(*command, "--force", "--reason=[a] new school year")
    assert made["published"]
    shown = pymk_json("release", "show", worse.release_id, f"--store={store.uri}")
    assert shown["overrides"][0]["reason"] == "[a] new school year"
    assert shown["overrides"][0]["gates"][0]["gate"] == "recall"
    told = pymk("release", "show", worse.release_id, f"--store={store.uri}").stdout
    assert "over its gates: [a] new school year" in told
    assert "recall@20 fell by 66.7%" in told


def test_gates_of_a_settings_file_hold_for_the_command(store: ObjectStore, tmp_path: Path) -> None:
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, **WORSE)
    (tmp_path / "pymk.toml").write_text("[gates]\nmax_recall_drop = 0.8\n")
    command = ["release", "publish", worse.release_id, f"--store={store.uri}"]
    assert pymk_json(*command, f"--config={tmp_path / 'pymk.toml'}")["published"]
