"""Files that an earlier version wrote open, and read the same: folders are added to the golden files, never edited."""

from pathlib import Path

from infra.release_files import ArtifactEntry, Override, Pointer, Release

GOLDEN = Path(__file__).parents[1] / "golden" / "release" / "v1"

THIS, BEFORE, LATER = (f"{day}T000000Z-0123456789ab" for day in (20260101, 20251231, 20260102))
GRAPH = ArtifactEntry("20260101T000000Z-0123456789abcdef", "graph/20260101T000000Z-0123456789abcdef/data", 3, 7, "00ff")
PASSED = Override(
    "2026-01-02T03:04:05.678901Z", "a drill", ({"gate": "recall", "detail": "recall@20 fell by 66.7%"},), BEFORE
)
RELEASE = Release(THIS, "2026-01-01T00:00:00Z", 0, (BEFORE,), {"graph": GRAPH})


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_a_release_of_version_1_opens_and_is_written_byte_for_byte() -> None:
    assert Release.from_json(golden("release.json"), "") == RELEASE
    assert RELEASE.to_json() == golden("release.json").strip()


def test_a_delta_of_version_1_opens_and_is_written_byte_for_byte() -> None:
    delta, id_ = Release.from_json(golden("delta.json"), ""), "20260101T010000Z-fedcba9876543210"
    rows = ArtifactEntry(id_, f"serving_delta/{id_}/data", 2, 5, "ff00")
    assert delta == Release(
        "20260101T010000Z-0123456789ab",
        "2026-01-01T01:00:00Z",
        3600,
        (THIS,),
        {"graph": GRAPH, "serving_delta": rows},
        base=THIS,
        base_as_of="2026-01-01T00:00:00Z",
    )
    assert delta.to_json() == golden("delta.json").strip()


def test_a_release_that_holds_its_overrides_opens_with_them() -> None:
    found = Release.from_json(golden("release_with_overrides.json"), "")
    assert found.overrides == (PASSED,)
    assert found.to_json() == RELEASE.to_json(), "they are not written again"


def test_an_override_and_a_pointer_of_version_1_open() -> None:
    assert Override.from_json(golden("override.json"), "") == PASSED
    assert PASSED.to_json() == golden("override.json").strip()
    assert Pointer.from_json(golden("current.json"), "") == Pointer(THIS, (BEFORE,), (LATER,))
