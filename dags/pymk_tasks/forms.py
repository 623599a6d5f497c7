"""The fields of the DAGs' forms. What does not match is refused before a run exists; nothing reaches a shell anyway."""

from typing import Any

from airflow.sdk import Param

SECTIONS = (
    "run", "graph", "encoder", "index", "candidates", "newcomers", "ranker", "rank", "evaluate", "serving", "rules",
    "gates",
)  # fmt: skip
"""Settings that a form may change: what decides a release's content, and the gates. Not where things are or run."""

TIME = r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2}))?$"
SETTING = rf"^({'|'.join(SECTIONS)})\.[a-z][a-z0-9_]{{0,63}}=[^\x00-\x1f\x7f]{{0,500}}$"
ARTIFACT = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}$"
RELEASE = r"^[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9_.-]{1,80}$"
TEXT = r"^[^\x00-\x1f\x7f]*$"


def as_of(empty: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        pattern=TIME,
        title="As of",
        description=f"Date or RFC 3339 time; empty: {empty} of the run's date. Only facts before it exist.",
    )


def settings() -> Param:
    return Param(
        None,
        type=["null", "array"],  # where it could not be null, Airflow's form would demand a value
        items={"type": "string", "pattern": SETTING},
        title="Settings",
        description=f"section.key=value, one a line, of {', '.join(SECTIONS)}. `pymk config show` lists them.",
    )


def force() -> Param:
    return Param(
        False,
        type="boolean",
        title="Force",
        description="Publish over gates of quality and over a newer release. Needs a reason, which is kept.",
    )


def leave_night() -> Param:
    return Param(
        False,
        type="boolean",
        title="Leave the night",
        description="Without a release: back to the last one of another night, not to the half hour before.",
    )


def reason(needed: bool) -> Param:
    given: dict[str, Any] = {"pattern": TEXT, "maxLength": 500, "title": "Reason"}
    if needed:
        return Param(**given, type="string", minLength=3, description="Why; kept in the store, with who asked.")
    return Param(None, **given, type=["null", "string"], description="Why; with Force, kept beside the release.")


def warm_start() -> Param:
    return Param(
        None,
        type=["null", "string"],
        pattern=ARTIFACT,
        title="Warm start",
        description="Id of the encoder to start training from; empty: as in the settings file, where usually none is.",
    )


def release(empty: str) -> Param:
    return Param(None, type=["null", "string"], pattern=RELEASE, title="Release", description=f"Its id; empty: {empty}")
