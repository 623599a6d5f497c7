"""Points in time: RFC 3339 in, UTC out."""

from datetime import UTC, date, datetime

from infra.errors import UsageError


def parse_as_of(text: str) -> datetime:
    """A date (its 00:00 UTC) or an RFC 3339 time with an offset, as UTC. Raises UsageError."""
    try:
        if len(text) == len("2026-01-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(
            f"{text!r}: not a date or an RFC 3339 time", "Write 2026-01-01 or 2026-01-01T06:00:00Z."
        ) from None
    return time.astimezone(UTC)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with seconds (and microseconds where there are any): `2026-01-01T00:00:00Z`."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
