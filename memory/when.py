"""The time that a question speaks of, in English and French: "last May", "il y a deux jours".

dateparser 1.5 was tried: it gives a moment where recall needs a span, misses "la semaine
dernière", reads a January in "il y a deux mois", and takes up to 100 ms for a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from memory.words import MAX_READ, fold

Bounds = tuple[datetime, datetime]
Rule = tuple[re.Pattern[str], Callable[[re.Match[str], datetime], Bounds]]


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` up to ``end`` (not in it), as ``words`` of the question say (folded)."""

    start: datetime
    end: datetime
    words: str


def spans(text: str, now: datetime) -> list[Span]:
    """The times that ``text`` names, seen from ``now`` (aware), in the order of the text.

    A month or a weekday without a year is the latest one that has begun. Beside a date, words
    relative to today are left out: in "the Friday before 3 June" they hang on the date.
    """
    folded = fold(text[:MAX_READ]).replace("’", "'")
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found = _read(folded, _DATES, today) or _read(folded, _RELATIVE, today)
    return [span for _, span in sorted(found, key=lambda one: one[0])]


def _read(text: str, rules: Iterable[Rule], today: datetime) -> list[tuple[int, Span]]:
    found = []
    for pattern, bounds_of in rules:
        matches = list(pattern.finditer(text))
        for match in matches:
            try:
                start, end = bounds_of(match, today)
            except (ValueError, OverflowError):  # 31 February, or before the year 1
                continue
            found.append((match.start(), Span(start, end, match.group())))
        # What one rule took is not read again by a later one.
        if matches:
            text = pattern.sub(lambda match: "|" * len(match.group()), text)
    return found


def _names(*numbered: str) -> dict[str, int]:
    return {name: number for number, names in enumerate(numbered) for name in names.split()}


_MONTHS = _names(
    "", "january janvier", "february fevrier", "march mars", "april avril", "may mai", "june juin",
    "july juillet", "august aout", "september septembre", "october octobre", "november novembre",
    "december decembre",
)  # fmt: skip
_WEEKDAYS = _names(
    "monday lundi", "tuesday mardi", "wednesday mercredi", "thursday jeudi", "friday vendredi",
    "saturday samedi", "sunday dimanche",
)  # fmt: skip
_NUMBERS = _names(
    "", "a an one un une", "two deux", "three trois", "four quatre", "five cinq", "six",
    "seven sept", "eight huit", "nine neuf", "ten dix", "eleven onze", "twelve douze",
)  # fmt: skip
_DAY, _WEEK, _MONTH, _YEAR = range(4)
_UNITS = _names("day jour", "week semaine", "month mois", "year annee an")
# By their first month; a winter has the year in which it ends.
_SEASONS = {
    **dict.fromkeys(("spring", "printemps"), 3),
    **dict.fromkeys(("summer", "ete"), 6),
    **dict.fromkeys(("autumn", "fall", "automne"), 9),
    **dict.fromkeys(("winter", "hiver"), 0),
}


def _days(first: datetime, count: int = 1) -> Bounds:
    return first, first + timedelta(days=count)


def _months(today: datetime, year: int, month: int, count: int = 1) -> Bounds:
    """``month`` is counted from the year's first and may lie before 1 or after 12."""

    def first_of(number: int) -> datetime:
        return today.replace(year=number // 12, month=number % 12 + 1, day=1)

    start = year * 12 + month - 1
    return first_of(start), first_of(start + count)


def _back(today: datetime, unit: int, count: int) -> Bounds:
    """The day, week (from Monday), month or year so many before this one."""
    if unit == _DAY:
        return _days(today - timedelta(days=count))
    if unit == _WEEK:
        return _days(today - timedelta(days=today.weekday() + 7 * count), 7)
    if unit == _MONTH:
        return _months(today, today.year, today.month - count)
    return _months(today, today.year - count, 1, 12)


def _iso_date(match: re.Match[str], today: datetime) -> Bounds:
    year, month, day = (int(part) for part in match.groups())
    return _days(today.replace(year=year, month=month, day=day))


def _date(match: re.Match[str], today: datetime) -> Bounds:
    month, day = _MONTHS[match["month"]], int(match["day"])
    latest = today.year - ((month, day) > (today.month, today.day))
    return _days(today.replace(year=int(match["year"] or latest), month=month, day=day))


def _month(match: re.Match[str], today: datetime) -> Bounds:
    return _months(today, int(match["year"]), _MONTHS[match["month"]])


def _season(match: re.Match[str], today: datetime) -> Bounds:
    return _months(today, int(match["year"]), _SEASONS[match["season"]], 3)


def _year(match: re.Match[str], today: datetime) -> Bounds:
    return _months(today, int(match["year"]), 1, 12)


def _latest_month(match: re.Match[str], today: datetime) -> Bounds:
    month = _MONTHS[match["month"]]
    # "Last May", said in May, is a year ago; "in May" is this one.
    past = month < today.month or (month == today.month and not _says_last(match))
    return _months(today, today.year - (not past), month)


def _last_season(match: re.Match[str], today: datetime) -> Bounds:
    first = _SEASONS[match["season"]]
    start, end = _months(today, today.year, first, 3)
    return (start, end) if end <= today else _months(today, today.year - 1, first, 3)


def _last_weekday(match: re.Match[str], today: datetime) -> Bounds:
    back = (today.weekday() - _WEEKDAYS[match["weekday"]]) % 7
    return _days(today - timedelta(days=back or (7 if _says_last(match) else 0)))


def _near_day(match: re.Match[str], today: datetime) -> Bounds:
    words = match.group()
    if re.search("before|avant", words):
        return _days(today - timedelta(days=2))
    return _days(today - timedelta(days=bool(re.search("yesterday|last|hier", words))))


def _last_weekend(match: re.Match[str], today: datetime) -> Bounds:
    return _days(today - timedelta(days=today.weekday() + 2), 2)


def _this_or_last(match: re.Match[str], today: datetime) -> Bounds:
    return _back(today, _UNITS[match["unit"]], int(_says_last(match)))


def _ago(match: re.Match[str], today: datetime) -> Bounds:
    return _back(today, _UNITS[match["unit"]], _number(match["number"]))


def _the_last_few(match: re.Match[str], today: datetime) -> Bounds:
    days = _number(match["number"]) * (1, 7, 31, 366)[_UNITS[match["unit"]]]
    return _days(today - timedelta(days=days), days + 1)


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word]


def _says_last(match: re.Match[str]) -> bool:
    return bool(re.search(rf"\b(?:{_LAST}|{_DERNIER})\b", match.group()))


def _rule(pattern: str, bounds_of: Callable[[re.Match[str], datetime], Bounds]) -> Rule:
    return re.compile(rf"\b(?:{pattern})\b"), bounds_of


def _one_of(group: str, names: Iterable[str]) -> str:
    return rf"(?P<{group}>{'|'.join(names)})"


_LAST = "last|past"
_DERNIER = "derni[a-z]+|pass[a-z]+"
_M = _one_of("month", _MONTHS)
_S = _one_of("season", _SEASONS)
_W = _one_of("weekday", _WEEKDAYS)
_N = rf"(?P<number>\d{{1,3}}|{'|'.join(_NUMBERS)})"
_U = rf"{_one_of('unit', _UNITS)}s?"
_D = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er)?"
_Y = r"(?P<year>(?:19|20)\d\d)"
# A bare "may" or "march" is as a rule no month.
_IN = "in|during|since|until|early|late|mid|en|depuis|debut|fin|mi|au mois de"
_DATES = (
    _rule(r"(\d{4})-(\d\d)-(\d\d)", _iso_date),
    _rule(rf"{_D} (?:of )?{_M}(?:,? {_Y})?", _date),
    _rule(rf"{_M} {_D}(?:,? {_Y})?", _date),
    _rule(rf"{_M},?(?: of| de)? {_Y}", _month),
    _rule(rf"{_S}(?: of| de)? {_Y}", _season),
    _rule(rf"(?:in|of|during|since|year|en|de|depuis|annee) {_Y}", _year),
)
_RELATIVE = (
    _rule(rf"(?:{_IN}|{_LAST}) {_M}", _latest_month),
    _rule(rf"{_M} (?:{_DERNIER})", _latest_month),
    _rule(rf"(?:{_LAST}) {_S}", _last_season),
    _rule(rf"{_S} (?:{_DERNIER})", _last_season),
    _rule(rf"(?:{_LAST}|on|this) {_W}", _last_weekday),
    _rule(rf"{_W} (?:{_DERNIER})", _last_weekday),
    _rule("(?:the )?day before yesterday|avant-hier", _near_day),
    _rule("yesterday|last night|hier|today|this (?:morning|afternoon|evening)", _near_day),
    _rule("aujourd'hui|ce matin|cet apres-midi|ce soir", _near_day),
    _rule(rf"(?:{_LAST}) week-?end|week-?end (?:{_DERNIER})", _last_weekend),
    _rule(rf"(?:{_LAST}|this|cette|cet|ce) {_U}", _this_or_last),
    _rule(rf"{_U} (?:{_DERNIER})", _this_or_last),
    _rule(rf"{_N} {_U} ago", _ago),
    _rule(rf"il y a {_N} {_U}", _ago),
    _rule(rf"(?:{_LAST}) {_N} {_U}", _the_last_few),
    _rule(rf"{_N} (?:{_DERNIER}) {_U}", _the_last_few),
)
