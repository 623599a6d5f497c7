"""Publishing: gates decide, force passes quality alone, and who passed what is kept beside the release."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from infra.artifacts import Manifest, artifact_id, write_artifact
from infra.errors import Conflict, CorruptArtifact, GateRefused, StoreError, UsageError
from infra.release_files import Override
from infra.release_records import overrides_of, recorded
from infra.releases import Release, ReleaseStore, manifests_of
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from infra.times import format_time
from jobs.publishing import ATTEMPTS, publish_release
from tests.jobs.test_gates import NIGHT, SOUND
from tests.suites.command import pymk, pymk_json

WORSE = {"recall@20": 0.1, "intervals": {"recall@20": [0.09, 0.11]}}
FAULTY = {"faults": {"friend": 7}}


def make_night(store: ObjectStore, day: int, **metrics: Any) -> Release:
    """A release of a graph, an index and a report with such metrics. lake: tells nights of one day apart."""
    as_of, parents, made = NIGHT + timedelta(days=day), {"lake": metrics.pop("lake", f"{day}")}, {}
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


def overrides(store: ObjectStore, release: Release) -> tuple[Override, ...]:
    return overrides_of(store, ReleaseStore(store).get(release.release_id))


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
    assert overrides(store, release) == ()


def test_a_worse_night_leaves_current_alone_and_says_how_to_pass(store: ObjectStore) -> None:
    first, worse = make_night(store, 0), make_night(store, 1, **WORSE)
    publish(store, first)
    with pytest.raises(GateRefused) as caught:
        publish(store, worse)
    assert caught.value.exit_code == 3
    assert f"{worse.release_id} is not published: recall: recall@20 fell by 66.7%" in caught.value.what
    assert f"`pymk release publish {worse.release_id} --force --reason TEXT`" in caught.value.fix
    assert current(store) == first.release_id
    assert overrides(store, worse) == ()


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
    (override,) = overrides(store, worse)
    assert override.reason == "a holiday: nobody is online"
    assert override.replaced == first.release_id
    assert [passed["gate"] for passed in override.gates] == ["recall", "ann"]
    assert "fell by 66.7%" in override.gates[0]["detail"]
    publish(store, worse, force=True)
    assert len(overrides(store, worse)) == 1, "nothing was passed over the second time"


def failing(self: ReleaseStore, release: Release, **options: Any) -> bool:
    raise StoreError("the network is gone")


def test_an_override_changes_no_byte_of_the_release(store: ObjectStore) -> None:
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, **WORSE)
    before = store.get(f"releases/{worse.release_id}.json").data
    assert set(orjson.loads(before)) == {"release_id", "as_of", "delta", "parents", "artifacts", "schema_version"}
    publish(store, worse, force=True)
    assert store.get(f"releases/{worse.release_id}.json").data == before, "every reader of this version opens it"
    releases = ReleaseStore(store)
    assert make_night(store, 1, **WORSE) == worse
    assert len(overrides(store, worse)) == 1, "a run that finds its release keeps the record"
    releases.verify(worse)
    releases.rollback()
    assert len(overrides(store, worse)) == 1
    assert [r.release_id for r in releases.list()][1:] == [worse.release_id], "a record is no release"
    publish(store, make_night(store, 2), force=True)
    publish(store, make_night(store, 3))
    releases.clean(keep=1, grace_s=0)
    assert not list(store.list(f"releases/{worse.release_id}"))


def test_overrides_that_were_kept_in_the_file_of_the_release_are_still_read(store: ObjectStore) -> None:
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, **WORSE)
    kept = {"at": "2026-01-01T00:00:00Z", "gates": [{"gate": "ann", "detail": "d"}], "reason": None, "replaced": None}
    key = f"releases/{worse.release_id}.json"
    store.put(key, orjson.dumps(orjson.loads(store.get(key).data) | {"overrides": [kept]}))
    publish(store, worse, force=True, reason="again")
    assert [(one.reason, one.published) for one in overrides(store, worse)] == [(None, True), ("again", True)]
    assert pymk_json("release", "show", worse.release_id, f"--store={store.uri}")["overrides"][0] == kept | {
        "published": True
    }


def test_what_was_not_published_is_not_recorded_as_published(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is cut off between the two writes leaves what nobody knows; one that lost leaves nothing."""
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, **WORSE)

    with monkeypatch.context() as patched:
        patched.setattr(ReleaseStore, "publish", failing)
        with pytest.raises(StoreError, match="the network is gone"):
            publish(store, worse, force=True)
    assert [one.published for one in overrides(store, worse)] == [False]
    told = pymk("release", "show", worse.release_id, f"--store={store.uri}").stdout
    assert "perhaps published, as the command was cut off" in told
    with pytest.raises(Conflict), recorded(store, worse.release_id, Override("2026-01-01T00:00:00Z", None, (), None)):
        raise Conflict("another was first")
    publish(store, worse, force=True)
    assert [one.published for one in overrides(store, worse)] == [False, True]


def test_a_damaged_record_is_named_and_the_release_opens(store: ObjectStore) -> None:
    release = make_night(store, 0)
    key = f"releases/{release.release_id}/override-x.json"
    for content in (b"", b"[]", b'{"schema_version": 1}', b'{"schema_version": 1, "gates": 1}'):
        store.put(key, content)
        with pytest.raises(CorruptArtifact, match=r"override-x.json: not an override.*delete it"):
            overrides_of(store, release)
    store.put(key, b'{"schema_version": 9}')
    with pytest.raises(CorruptArtifact, match="override version 9, this code reads 1"):
        overrides_of(store, release)
    assert publish(store, release)["published"]


class Overtaken(ReleaseStore):
    """While the gates of a release are checked, one of `others` is published, the next one each time."""

    others: tuple[Release, ...] = ()

    def publish(self, release: Release, **options: Any) -> bool:
        if self.others:
            other, self.others = self.others[0], self.others[1:]
            assert ReleaseStore(self.store).publish(other)
        return super().publish(release, **options)


@pytest.mark.parametrize("force", [False, True])
def test_a_release_is_judged_beside_the_one_that_it_replaces(store: ObjectStore, force: bool) -> None:
    """As bad as the one that was served when the gates were checked, far worse than the one served since."""
    bad, good, worse = make_night(store, 0, **WORSE), make_night(store, 1), make_night(store, 2, **WORSE)
    publish(store, bad)
    releases, told = Overtaken(store), list[str]()
    releases.others = (good,)
    if not force:
        with pytest.raises(GateRefused, match=r"fell by 66\.7%"):
            publish_release(releases, worse, Settings(), told.append)
        assert current(store) == good.release_id
        assert overrides(store, worse) == ()
    else:
        made = publish_release(releases, worse, Settings(), told.append, force=True)
        assert made["overridden"] == ["recall"]
        assert [one.replaced for one in overrides(store, worse)] == [good.release_id]
        assert current(store) == worse.release_id
    assert "another release was published meanwhile" in told[0]


def test_who_is_overtaken_again_and_again_gives_up(store: ObjectStore) -> None:
    rivals, release = tuple(make_night(store, day) for day in range(ATTEMPTS + 1)), make_night(store, 20)
    releases, told = Overtaken(store), list[str]()
    releases.others = rivals
    with pytest.raises(Conflict, match="was moved meanwhile"):
        publish_release(releases, release, Settings(), told.append)
    assert len(told) == ATTEMPTS - 1
    assert current(store) == rivals[ATTEMPTS - 1].release_id


def test_a_conflict_that_is_not_of_current_is_raised(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands record what they passed over in the same second."""
    good, worse = make_night(store, 0), make_night(store, 1, **WORSE)
    publish(store, good)
    monkeypatch.setattr("jobs.publishing.format_time", lambda time: "2026-01-01T00:00:00Z")
    store.put(f"releases/{worse.release_id}/override-2026-01-01T000000Z.json", b"another's")
    with pytest.raises(Conflict, match=r"override-2026-01-01T000000Z\.json"):
        publish(store, worse, force=True)
    assert current(store) == good.release_id


@pytest.mark.parametrize("force", [False, True])
def test_a_release_without_a_report_is_refused(store: ObjectStore, force: bool) -> None:
    night = make_night(store, 0)
    manifests = manifests_of(store, night)
    bare = ReleaseStore(store).make({kind: manifests[kind] for kind in ("graph", "index")})
    with pytest.raises(GateRefused, match=r"integrity: .* has no report"):
        publish(store, bare, force=force)
    assert current(store) is None


def test_a_reason_that_nothing_would_keep_is_a_usage_error(store: ObjectStore) -> None:
    release, told = make_night(store, 0), list[str]()
    with pytest.raises(UsageError, match="--reason without --force"):
        publish(store, release, reason="because")
    store_of = [f"--store={store.uri}"]
    stage_of = [f"--lake={store.uri}", "--as-of=2026-01-01", *store_of]
    for command, said in (
        (["release", "publish", release.release_id, *store_of], "--reason without --force"),
        (["stage", "publish", *stage_of], "--reason without --force"),
        (["stage", "embed", *stage_of], "takes neither --force nor --reason"),
    ):
        assert said in pymk_json(*command, "--reason=because", code=2)["error"]["what"]
    assert "neither" in pymk_json("stage", "embed", *stage_of, "--force", code=2)["error"]["what"]
    assert current(store) is None
    publish_release(ReleaseStore(store), release, Settings(), told.append, force=True, reason="because")
    assert "the reason is not kept" in told[-1]


@pytest.mark.parametrize("force", [False, True])
def test_nothing_passes_integrity(store: ObjectStore, force: bool) -> None:
    faulty = make_night(store, 0, **FAULTY)
    with pytest.raises(GateRefused, match=r"7 rows show an existing friend.*find the fault"):
        publish(store, faulty, force=force)
    assert current(store) is None
    assert overrides(store, faulty) == ()


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
