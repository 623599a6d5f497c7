"""Points in time: RFC 3339 in, UTC out."""

from datetime import UTC, date, datetime, timedelta

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
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{text!r}: not within the years 1 to 9999 of UTC", "Write a time within them.") from None


def days_before(time: datetime, days: int) -> datetime:
    """So many days before a time in UTC, or the first moment of year 1 where there are not so many."""
    first = datetime.min.replace(tzinfo=UTC)
    return max(first, time - timedelta(days=min(days, (time - first).days)))


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with seconds (and microseconds where there are any): `2026-01-01T00:00:00Z`."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
