"""A time is UTC, or an error that says how to write it."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.errors import UsageError
from infra.times import days_before, parse_as_of


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_has_no_year_for_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not within the years 1 to 9999") as caught:
        parse_as_of(text)
    assert caught.value.fix


def test_days_before_end_where_the_calendar_begins() -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert days_before(first, 1) == first
    assert days_before(datetime(2020, 1, 1, 6, tzinfo=UTC), 10**9) - first < timedelta(days=1)
    assert days_before(datetime(2020, 1, 1, tzinfo=UTC), 180) == datetime(2019, 7, 5, tzinfo=UTC)
