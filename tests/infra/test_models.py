"""A version of a model is whole, checked and never changes, in a folder and in a bucket."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.artifacts import local_copy
from infra.errors import Conflict, CorruptArtifact, GateRefused, NotFound, PymkError, StoreError, UsageError
from infra.model_golden import Golden, read_golden, write_golden
from infra.model_spec import InputSpec, ModelSpec
from infra.models import ModelVersion, Registry
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from tests.suites.model_folders import any_folder, columns_of, small_spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/models", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


def sound(folder: Path, spec: ModelSpec) -> Mapping[str, Any]:
    return {"rows": 1}


def push(store: ObjectStore, folder: Path, now: datetime = NOW) -> ModelVersion:
    return Registry(store).push(folder, sound, now, "a")


def test_what_was_pushed_is_read_back_whole(store: ObjectStore, tmp_path: Path) -> None:
    pushed = push(store, any_folder(tmp_path / "a"))
    model, folder = Registry(store).open("small", "1")
    assert model == pushed == Registry(store).get("small", "1")
    assert (model.spec, model.checks, model.by) == (small_spec(), {"rows": 1}, "a")
    assert model.pushed_at == "2026-01-01T00:00:00Z"
    assert (folder / "weights" / "w.txt").read_text() == "weights"
    assert {entry.path for entry in model.files} == {"card.md", "golden.parquet", "model.toml", "weights/w.txt"}
    assert model.size_bytes == sum(path.stat().st_size for path in (tmp_path / "a").rglob("*") if path.is_file())


def test_one_file_is_read_and_verified(store: ObjectStore, tmp_path: Path) -> None:
    model = push(store, any_folder(tmp_path / "a"))
    registry = Registry(store)
    assert registry.read(model, "card.md") == (tmp_path / "a" / "card.md").read_bytes()
    assert registry.read(model, "reference.json") is None
    store.put(f"{model.prefix}/{model.folder}/card.md", b"other")
    with pytest.raises(CorruptArtifact, match=r"card\.md: is not what its manifest says"):
        registry.read(model, "card.md")


def test_the_same_files_again_are_the_version_that_is_there(store: ObjectStore, tmp_path: Path) -> None:
    first = push(store, any_folder(tmp_path / "a"))
    assert push(store, tmp_path / "a", NOW + timedelta(days=1)) == first
    assert Registry(store).list() == [first]


def test_a_version_never_changes(store: ObjectStore, tmp_path: Path) -> None:
    first = push(store, any_folder(tmp_path / "a"))
    with pytest.raises(Conflict, match="small 1 was pushed already, with other files"):
        push(store, any_folder(tmp_path / "b", "others"))
    assert Registry(store).open("small", "1")[0] == first
    assert store.folders("models/small/1/") == [first.folder]


def test_of_many_who_push_one_version_one_wins_whole(store: ObjectStore, tmp_path: Path) -> None:
    folders = [any_folder(tmp_path / f"{n}", f"weights {n}") for n in range(6)]

    def attempt(folder: Path) -> str | None:
        try:
            return push(store, folder).content_hash
        except Conflict:
            return None

    with ThreadPoolExecutor(6) as pool:
        won = [found for found in pool.map(attempt, folders) if found]
    model, folder = Registry(store).open("small", "1")
    assert won == [model.content_hash]
    assert store.folders("models/small/1/") == [model.folder]
    assert (folder / "weights" / "w.txt").read_text().startswith("weights ")


def test_without_a_version_the_content_names_it(store: ObjectStore, tmp_path: Path) -> None:
    made = [push(store, any_folder(tmp_path / text, text, version=None)) for text in ("a", "b")]
    assert [one.version for one in made] == [one.content_hash[:12] for one in made]
    assert len({one.version for one in made}) == 2


def test_versions_are_listed_by_name_and_time_and_a_damaged_one_is_passed_over(
    store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    days = {"b": 2, "a": 3, "c": 1}
    made = {v: push(store, any_folder(tmp_path / v, v, version=v), NOW + timedelta(days=d)) for v, d in days.items()}
    other = push(store, any_folder(tmp_path / "o", name="other"))
    registry = Registry(store)
    assert registry.list() == [other, made["c"], made["b"], made["a"]]
    assert registry.list("small") == [made["c"], made["b"], made["a"]]
    assert (registry.latest("small"), registry.latest("none")) == (made["a"], None)
    store.put("models/small/c/manifest.json", b"{")
    assert registry.list("small") == [made["b"], made["a"]]
    assert "not a manifest of a model" in caplog.text


def test_when_versions_were_pushed_is_read_once_but_for_the_newest(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    for at, version in enumerate("abcde"):
        push(store, any_folder(tmp_path / version, version, version=version), NOW + timedelta(days=at))
    first = registry.pushed("small", {})
    assert first == {version: f"2026-01-0{at + 1}T00:00:00Z" for at, version in enumerate("abcde")}
    store.put("models/small/a/manifest.json", b"{")
    registry.remove("small", "e")
    assert registry.pushed("small", first) == {v: first[v] for v in "abcd"}, "a is known, and not read"
    store.delete("models/small/d/manifest.json")  # as far as a removal that dies gets
    assert registry.pushed("small", first) == {v: first[v] for v in "abc"}
    store.put("models/small/c/manifest.json", b"{")
    assert registry.pushed("small", first) == {v: first[v] for v in "ab"}
    assert registry.pushed("none", first) == {}


def test_a_store_that_is_away_takes_no_version_for_gone(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(store, any_folder(tmp_path / "a"))
    known = Registry(store).pushed("small", {})

    def away(key: str) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store, "get", away)
    with pytest.raises(StoreError, match="away"):
        Registry(store).pushed("small", known)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema_version": 99}', b"[" * 100_000])
def test_other_bytes_are_no_manifest(store: ObjectStore, data: bytes) -> None:
    store.put("models/small/1/manifest.json", data)
    with pytest.raises(CorruptArtifact, match="models/small/1"):
        Registry(store).get("small", "1")


def test_a_manifest_of_another_version_is_not_believed(store: ObjectStore, tmp_path: Path) -> None:
    push(store, any_folder(tmp_path / "a"))
    store.put("models/small/2/manifest.json", store.get("models/small/1/manifest.json").data)
    with pytest.raises(CorruptArtifact, match="is small 1"):
        Registry(store).get("small", "2")


def test_an_altered_file_is_found(store: ObjectStore, tmp_path: Path) -> None:
    model = push(store, any_folder(tmp_path / "a"))
    store.put(f"{model.prefix}/{model.folder}/weights/w.txt", b"altered")
    with pytest.raises(CorruptArtifact, match=r"w\.txt"):
        Registry(store).open("small", "1")


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFound, match="pymk model list"):
        Registry(store).get("small", "1")
    assert (Registry(store).list(), Registry(store).list("small")) == ([], [])


@pytest.mark.parametrize(("name", "version"), [("..", "1"), ("a", ".."), ("a/b", "1"), ("a", "1/2"), ("", "1")])
def test_names_are_checked_before_they_are_paths(store: ObjectStore, name: str, version: str) -> None:
    for act in (Registry(store).get, Registry(store).open, Registry(store).remove):
        with pytest.raises(UsageError):
            act(name, version)


def test_a_refused_push_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    def refuse(folder: Path, spec: ModelSpec) -> Mapping[str, Any]:
        raise GateRefused("scores differ")

    with pytest.raises(GateRefused):
        Registry(store).push(any_folder(tmp_path / "a"), refuse, NOW, "a")
    assert list(store.list("")) == []


def test_a_folder_that_changes_while_it_is_checked_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    folder = any_folder(tmp_path / "a")

    def change(path: Path, spec: ModelSpec) -> Mapping[str, Any]:
        (path / "weights" / "w.txt").write_text("other")
        return {}

    with pytest.raises(Conflict, match="changed while it was checked"):
        Registry(store).push(folder, change, NOW, "a")
    assert list(store.list("")) == []


def test_a_removed_version_may_be_pushed_again(store: ObjectStore, tmp_path: Path) -> None:
    push(store, any_folder(tmp_path / "a"))
    Registry(store).remove("small", "1")
    assert list(store.list("")) == []
    assert push(store, any_folder(tmp_path / "b", "others")).version == "1"


def test_cleaning_releases_leaves_models(store: ObjectStore, tmp_path: Path) -> None:
    model = push(store, any_folder(tmp_path / "a"))
    ReleaseStore(store).clean(1, 0)
    assert Registry(store).list() == [model]


def test_a_model_that_was_opened_is_known_while_the_bucket_is_away(s3_bucket: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3_bucket}/models", writable=True)
    model = push(store, any_folder(tmp_path / "a"))
    _, folder = Registry(store).open("small", "1")
    copy = local_copy(store.uri)
    assert copy is not None
    assert Registry(copy).open("small", "1") == (model, folder)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("weights/w.pkl", b"x", "may hold code"),
        ("weights/deep/w.PT", b"x", "may hold code"),
        ("notes.txt", b"x", "is no part of a model"),
        (".hidden", b"x", "is no part of a model"),
        ("card.md", b" \n", "card.md: no such file, or empty"),
        ("model.toml", b"x", "not TOML"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    folder = any_folder(tmp_path / "a")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    with pytest.raises(UsageError, match=said):
        push(open_store(str(tmp_path / "store"), create=True), folder)


def test_a_link_or_no_weights_are_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    folder = any_folder(tmp_path / "a")
    (folder / "weights" / "link").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="is a link"):
        push(store, folder)
    for path in (folder / "weights").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no weights"):
        push(store, folder)


WIDE = small_spec(inputs=(InputSpec(name="walk", type="float16"), InputSpec(name="embedding", width=4)))


def test_a_golden_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    columns, scores = columns_of(WIDE, 5), np.arange(5, dtype=np.float32)
    write_golden(tmp_path, WIDE, Golden(columns, scores))
    golden = read_golden(tmp_path, WIDE)
    assert len(golden) == 5
    np.testing.assert_array_equal(golden.scores, scores)
    for name, values in columns.items():
        np.testing.assert_array_equal(golden.columns[name], values)
        assert golden.columns[name].dtype == values.dtype


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (small_spec(inputs=(InputSpec(name="other"),)), "has no column other"),
        (small_spec(inputs=(InputSpec(name="walk"),)), "column walk has type halffloat"),
        (small_spec(inputs=(InputSpec(name="embedding", width=3),)), "column embedding has type"),
        (small_spec(inputs=(InputSpec(name="walk", type="float16"),), output="other"), "has no column other"),
    ],
)
def test_a_golden_batch_of_other_columns_is_refused(spec: ModelSpec, said: str, tmp_path: Path) -> None:
    write_golden(tmp_path, WIDE, Golden(columns_of(WIDE, 5), np.zeros(5, np.float32)))
    with pytest.raises(UsageError, match=said):
        read_golden(tmp_path, spec)


@pytest.mark.parametrize("scores", [np.zeros(0, np.float32), np.array([1, np.nan], np.float32)])
def test_a_golden_batch_that_says_nothing_is_refused(scores: np.ndarray, tmp_path: Path) -> None:
    write_golden(tmp_path, WIDE, Golden(columns_of(WIDE, len(scores)), scores))
    with pytest.raises(UsageError, match=r"rows|not finite"):
        read_golden(tmp_path, WIDE)


@pytest.mark.parametrize("data", [None, b"not parquet"])
def test_a_golden_batch_that_is_none_is_refused(data: bytes | None, tmp_path: Path) -> None:
    if data:
        (tmp_path / "golden.parquet").write_bytes(data)
    with pytest.raises(PymkError, match=r"golden\.parquet"):
        read_golden(tmp_path, WIDE)
