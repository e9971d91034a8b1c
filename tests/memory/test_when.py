"""The times that a question names, in English and French, seen from Saturday 21 November 2026."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.when import spans

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
NAMED = [
    ("What did I say yesterday?", "2026-11-20", "2026-11-21"),
    ("Qu'est-ce que j'ai dit hier ?", "2026-11-20", "2026-11-21"),
    ("avant-hier", "2026-11-19", "2026-11-20"),
    ("the day before yesterday", "2026-11-19", "2026-11-20"),
    ("What did I cook last week?", "2026-11-09", "2026-11-16"),
    ("la semaine dernière", "2026-11-09", "2026-11-16"),
    ("ce mois-ci", "2026-11-01", "2026-12-01"),
    ("last month", "2026-10-01", "2026-11-01"),
    ("l'an dernier", "2025-01-01", "2026-01-01"),
    ("Where was I last May?", "2026-05-01", "2026-06-01"),
    ("en mars dernier", "2026-03-01", "2026-04-01"),
    ("last November", "2025-11-01", "2025-12-01"),
    ("in November", "2026-11-01", "2026-12-01"),
    ("What happened in 2022?", "2022-01-01", "2023-01-01"),
    ("in July 2022", "2022-07-01", "2022-08-01"),
    ("le 14 juillet", "2026-07-14", "2026-07-15"),
    ("le 1er mai 2025", "2025-05-01", "2025-05-02"),
    ("on May 7th, 2023", "2023-05-07", "2023-05-08"),
    ("on 2023-05-07", "2023-05-07", "2023-05-08"),
    ("il y a deux mois", "2026-09-01", "2026-10-01"),
    ("three days ago", "2026-11-18", "2026-11-19"),
    ("the last two weeks", "2026-11-07", "2026-11-22"),
    ("les trois derniers jours", "2026-11-18", "2026-11-22"),
    ("lundi dernier", "2026-11-16", "2026-11-17"),
    ("last Saturday", "2026-11-14", "2026-11-15"),
    ("l'été dernier", "2026-06-01", "2026-09-01"),
    ("the winter of 2024", "2023-12-01", "2024-03-01"),
]


@pytest.mark.parametrize(("text", "start", "end"), NAMED)
def test_a_time_is_read_as_a_span(text: str, start: str, end: str) -> None:
    (span,) = spans(text, NOW)
    assert (span.start.date().isoformat(), span.end.date().isoformat()) == (start, end)


@pytest.mark.parametrize(
    "text",
    [
        "May I march in?",
        "Which port does the gateway use?",
        "SELECT the top 10 customers",
        "j'ai été malade",
        "on 2026-02-30",
        "Where is the second of the 300 files?",
    ],
)
def test_what_names_no_time_gives_none(text: str) -> None:
    assert spans(text, NOW) == []


def test_beside_a_date_what_is_relative_hangs_on_it() -> None:
    (span,) = spans("What did she finish last Friday, on 23 January, 2022?", NOW)
    assert span.start == datetime(2022, 1, 23, tzinfo=UTC)


_WORDS = "0 3 31 999 2022 ago il y a last in en may mai week jours hier of le - , ans winter"
_words = st.sampled_from(_WORDS.split())


@given(st.lists(_words | st.text(max_size=4), max_size=12).map(" ".join), st.datetimes())
def test_any_text_gives_spans_that_begin_before_they_end(text: str, moment: datetime) -> None:
    for span in spans(text, moment.replace(tzinfo=UTC)):
        assert span.start < span.end
        assert span.end - span.start <= timedelta(days=367 * 1000)
