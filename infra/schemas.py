"""Every table as a pyarrow schema, with the unit and meaning of each column: the executable form of docs/tables.md."""

from dataclasses import dataclass

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, meaning: str, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={"meaning": meaning})


@dataclass(frozen=True)
class LakeTable:
    """One input table. `required` columns must be there and be filled; others may be absent, which means null.

    `interval`: the (start, end) columns between which a fact holds, or None. `at`: the column that dates a fact.
    `extra`: unknown columns are kept (profiles) instead of ignored.
    """

    name: str
    schema: pa.Schema
    required: tuple[str, ...]
    start: str | None = None
    end: str | None = None
    extra: bool = False


_USER = _field("user_id", pa.int64(), "the user, any int64", required=True)
_OTHER = _field("other_id", pa.int64(), "the other user, any int64", required=True)

CONNECTIONS = LakeTable(
    "connections",
    pa.schema(
        [
            _USER,
            _OTHER,
            _field("connected_at", TIMESTAMP, "UTC time the friendship began; null: it has always existed"),
            _field("disconnected_at", TIMESTAMP, "UTC time it ended; null: it still holds"),
        ]
    ),
    required=("user_id", "other_id"),
    start="connected_at",
    end="disconnected_at",
)
PROFILES = LakeTable(
    "profiles",
    pa.schema([_USER, _field("joined_at", TIMESTAMP, "UTC time the user joined")]),
    required=("user_id",),
    start="joined_at",
    extra=True,
)
USER_EVENT_NAMES = (
    "deactivated", "reactivated", "banned", "unbanned", "opted_out", "opted_in", "erased",
)  # fmt: skip
USER_EVENTS = LakeTable(
    "user_events",
    pa.schema(
        [
            _USER,
            _field("event", pa.string(), ", ".join(USER_EVENT_NAMES), required=True),
            _field("at", TIMESTAMP, "UTC time of the event", required=True),
        ]
    ),
    required=("user_id", "event", "at"),
    start="at",
)
AFFILIATIONS = LakeTable(
    "affiliations",
    pa.schema(
        [
            _USER,
            _field("kind", pa.string(), "company, school, place, interest, group, …", required=True),
            _field("entity_id", pa.string(), "the entity, text or integer, unique within its kind", required=True),
            _field("times", pa.int32(), "how often, count; null: once"),
            _field("since", TIMESTAMP, "UTC time it began; null: always"),
        ]
    ),
    required=("user_id", "kind", "entity_id"),
    start="since",
)
INTERACTIONS = LakeTable(
    "interactions",
    pa.schema(
        [
            _USER,
            _OTHER,
            _field("kind", pa.string(), "profile_view, invite_sent, message, …", required=True),
            _field("at", TIMESTAMP, "UTC time of the interaction", required=True),
        ]
    ),
    required=("user_id", "other_id", "kind", "at"),
    start="at",
)


def _exclusion(name: str, meaning: str) -> LakeTable:
    return LakeTable(
        name,
        pa.schema(
            [
                _USER,
                _OTHER,
                _field("at", TIMESTAMP, f"UTC time of the {meaning}; null: always"),
                _field("removed_at", TIMESTAMP, f"UTC time the {meaning} was taken back"),
            ]
        ),
        required=("user_id", "other_id"),
        start="at",
        end="removed_at",
    )


BLOCKS = _exclusion("blocks", "block")
DISMISSALS = _exclusion("dismissals", "dismissal")
IMPRESSIONS = LakeTable(
    "impressions",
    pa.schema(
        [
            _USER,
            _OTHER,
            _field("at", TIMESTAMP, "UTC time of the impression", required=True),
            _field("position", pa.int32(), "rank at which the person was shown, 1 = first"),
            _field("outcome", pa.string(), "shown, clicked, invited or accepted"),
            _field("model", pa.string(), "name@version of the model that ranked, or release; null: not told"),
        ]
    ),
    required=("user_id", "other_id", "at"),
    start="at",
)

LAKE_TABLES = {
    t.name: t
    for t in (
        CONNECTIONS, PROFILES, USER_EVENTS, AFFILIATIONS, INTERACTIONS, BLOCKS, DISMISSALS, IMPRESSIONS,
    )
}  # fmt: skip

QUARANTINE = pa.schema(
    [
        _field("table", pa.string(), "the lake table the row came from", required=True),
        _field("reason", pa.string(), "why the row was refused", required=True),
        _field("row", pa.string(), "the row as JSON", required=True),
    ]
)

CANDIDATES = pa.schema(
    [
        _field("user_row", pa.int32(), "dense row of the user", required=True),
        _field("candidate_row", pa.int32(), "dense row of the candidate", required=True),
        _field("sources", pa.uint8(), "bit set of lookup_api.ranking.sources that named the candidate", required=True),
        _field("common_neighbours", pa.float16(), "log(1 + shared friends)", required=True),
        _field("resource_allocation", pa.float16(), "64 x square root of resource allocation", required=True),
        _field("fresh_allocation", pa.float16(), "64 x square root of it by age of the friendships", required=True),
        _field("walk", pa.float16(), "1024 x square root of personalised PageRank over friends", required=True),
        _field("joint_walk", pa.float16(), "1024 x square root of it over friends and groups together", required=True),
    ]
)

REASON = pa.struct(
    [
        _field("kind", pa.string(), "mutual_connections, same_attribute, same_affiliation, near_in_network, popular"),
        _field("attribute", pa.string(), "the attribute or affiliation kind, or null"),
        _field("value", pa.string(), "the shared value, or null"),
        _field("count", pa.int32(), "how many, or null"),
    ]
)
RANKINGS = pa.schema(
    [
        _field("user_id", pa.int64(), "the user the list is for", required=True),
        _field("candidate_id", pa.int64(), "the person to show", required=True),
        _field("rank", pa.int32(), "1 = best", required=True),
        _field("score", pa.float32(), "log-odds up to a constant, before exposure and blend", required=True),
        _field("reasons", pa.list_(REASON), "why, strongest first", required=True),
    ]
)

SHADOWS = pa.schema(
    [
        _field("request", pa.int32(), "number of the request within the file; its rows are of the same people in the "
               "same order, and say of nobody who it is", required=True),
        _field("at", TIMESTAMP, "UTC time of the answer", required=True),
        _field("surface", pa.string(), "the surface whose route was followed", required=True),
        _field("model", pa.string(), "name of the model; release: the ranker of the release", required=True),
        _field("version", pa.string(), "its version; of the release's ranker the release's id", required=True),
        _field("variant", pa.string(), "stable, canary, or shadow for a model that did not answer", required=True),
        _field("outcome", pa.string(), "answered, failed or late", required=True),
        _field("ms", pa.float32(), "milliseconds that scoring took"),
        _field("scores", pa.list_(pa.float32()), "a score each, null where it failed"),
        _field("inputs", pa.map_(pa.string(), pa.list_(pa.float32())),
               "by input what a shadow was given, without those of which every value is the default"),
    ]
)  # fmt: skip
"""What `shadows/{surface}/{day}/*.parquet` of a store hold: one row a request and model."""
