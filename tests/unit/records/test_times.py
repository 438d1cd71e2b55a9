from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.times import duration_text, from_micros, parse_duration, parse_time, to_micros, to_text

TIMES = st.datetimes(timezones=st.just(UTC))


@given(TIMES)
def test_a_time_keeps_its_value_as_text_and_as_microseconds(at):
    assert parse_time(to_text(at)) == from_micros(to_micros(at)) == at


@given(TIMES, TIMES)
def test_times_sort_alike_in_every_form(a, b):
    assert (to_text(a) < to_text(b)) is (to_micros(a) < to_micros(b)) is (a < b)
    assert len(to_text(a)) == len("2026-03-03T09:00:00.000000Z")


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-03T09:00Z",
        "2026-03-03T09:00",
        "2026-03-03 09:00:00",
        "2026-03-03T11:00+02:00",
        "2026-03-03T09:00:00.000000Z",
        datetime(2026, 3, 3, 9),
        datetime(2026, 3, 3, 9, tzinfo=UTC),
        datetime(2026, 3, 3, 4, tzinfo=timezone(timedelta(hours=-5))),
    ],
    ids=str,
)
def test_a_time_is_utc_unless_it_says_otherwise(value):
    assert parse_time(value) == datetime(2026, 3, 3, 9, tzinfo=UTC)
    assert parse_time(value).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2026-13-01", "2026-02-30", "25:00", "0001-01-01T00:00+23:00", None, 7, date(2026, 1, 1)],
    ids=str,
)
def test_what_is_no_time_is_refused_and_the_field_named(value):
    with pytest.raises(InvalidInput) as caught:
        parse_time(value, field="at")
    assert caught.value.field == "at"
    assert "2026" in caught.value.hint()


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("10000w", timedelta(weeks=10_000)),
    ],
)
def test_a_length_of_time_is_a_number_and_a_unit(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "1", "d", "1.5h", "1 d", "1D", "1d\n", "10001w", "99999999w", "٣d", 3, None, True]
)
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(InvalidInput, match="is no length of time"):
        parse_duration(text)


def test_a_length_of_time_is_told_in_its_largest_unit():
    assert duration_text(timedelta(days=3, hours=23)) == "3 days"
    assert duration_text(timedelta(hours=1, minutes=59)) == "1 hour"
    assert duration_text(timedelta(minutes=2)) == "2 minutes"
    assert duration_text(timedelta(seconds=59)) == "less than a minute"
