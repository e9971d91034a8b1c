"""Measurements in a TOML file: ``[[measured]]`` rows, read with care and written whole."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

from adapters.evaluation.measurement import DIRECTIONS, SOLVED, Measurement
from kiki.errors import SettingsError
from kiki.names import base_key, near

_HEADER = re.compile(r"^\s*\[\[\s*measured\s*\]\]\s*(#.*)?$")
_TEXTS = ("adapter", "base_model", "benchmark", "metric", "source")
_SCORES = ("base_score", "adapter_score")
_COUNTS = ("n", "only_base", "only_adapter")
_BOUNDS = ("low", "high")
_NAMES = tuple(field.name for field in fields(Measurement))
_ROUNDING = 0.6  # tasks by which rounded percentages may miss the counts


def read_table(path: Path) -> tuple[Measurement, ...]:
    """All rows of the file. Raises SettingsError naming the file, the row, and the fix."""
    try:
        return _parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The policy file {path} can't be read: {error}.",
            fix="Correct policy_file, or unset it to use the shipped one.",
        ) from error


def put_row(path: Path, row: Measurement, *, start_from: Path | None = None) -> None:
    """Write the row into the file: in place of the same comparison's earlier row, else at the end.

    Comments and other rows stay as they are. A file that isn't there yet begins as a copy of
    ``start_from``. The file is replaced as a whole, so a reader never sees half of it. Raises
    SettingsError.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            origin = path if path.exists() or start_from is None else start_from
            text = origin.read_text(encoding="utf-8") if origin.exists() else ""
            _replace(path, _with_row(text, row, origin))
    except OSError as error:
        raise SettingsError(
            f"The policy file {path} can't be written: {error}.",
            fix="Name a file that you may write.",
        ) from error


def _same(old: Measurement, new: Measurement) -> bool:
    return (old.adapter, base_key(old.base_model), old.benchmark, old.metric) == (
        new.adapter,
        base_key(new.base_model),
        new.benchmark,
        new.metric,
    )


def _parse(text: str, path: Path) -> tuple[Measurement, ...]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: not valid TOML: {error}."
        raise SettingsError(message, fix="Correct that line.") from error
    unknown = set(content) - {"measured"}
    if unknown:
        raise SettingsError(
            f"{path}: {sorted(unknown)[0]!r} is not known here.",
            fix="The file holds rows that begin with [[measured]].",
        )
    rows = content.get("measured", [])
    if not isinstance(rows, list):
        raise SettingsError(f"{path}: measured is not a list.", fix="Write [[measured]] twice [[.")
    return tuple(_row(row, f"{path} row {number}") for number, row in enumerate(rows, start=1))


def _row(row: Any, where: str) -> Measurement:
    if not isinstance(row, dict):
        raise SettingsError(f"{where} is not a table.", fix="Begin each row with [[measured]].")
    for name in row:
        if name not in _NAMES:
            raise SettingsError(
                f"{where}: there is no field {name!r}.{near(name, _NAMES)}",
                fix=f"Fields: {', '.join(_NAMES)}.",
            )
    values: dict[str, Any] = {name: _text(row, name, where) for name in _TEXTS}
    where = f"{where} ({values['adapter']}, {values['benchmark']})"
    values |= {name: _number(row.get(name), name, where) for name in _SCORES}
    values |= {name: _number(row[name], name, where) for name in _BOUNDS if name in row}
    values |= {name: _count(row[name], name, where) for name in _COUNTS if name in row}
    values["date"] = row.get("date")
    if type(values["date"]) is not date:
        raise _wrong(where, "date", values["date"], "Write a day without quotes: 2026-11-21.")
    values["higher_is_better"] = _direction(row.get("higher_is_better"), values["metric"], where)
    measurement = Measurement(**values)
    _check_scores(measurement, where)
    _check_pairs(measurement, where)
    return measurement


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, name, value, "Give a text in quotes.")
    return value.strip()


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(where, name, value, "Give a finite number.")
    return float(value)


def _count(value: Any, name: str, where: str) -> int:
    least = 1 if name == "n" else 0
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        fix = "Leave n out where it isn't known." if name == "n" else "Give a count of tasks."
        raise _wrong(where, name, value, fix)
    return value


def _direction(value: Any, metric: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "higher_is_better", value, "Give true or false.")
    if DIRECTIONS.get(metric, value) != value:
        right = str(DIRECTIONS[metric]).lower()
        raise _wrong(where, "higher_is_better", value, f"For {metric} it is {right}.")
    return value


def _check_scores(row: Measurement, where: str) -> None:
    for name in _SCORES:
        score = getattr(row, name)
        if row.metric == SOLVED and not 0 <= score <= 100:
            raise _wrong(where, name, score, f"{SOLVED} goes from 0 to 100.")
        if row.metric == "perplexity" and score < 1:
            raise _wrong(where, name, score, "A perplexity is at least 1.")


def _check_pairs(row: Measurement, where: str) -> None:
    """What was measured in pairs must agree with the scores: it, and not they, decides."""
    if (row.low is None) != (row.high is None) or (row.only_base is None) != (
        row.only_adapter is None
    ):
        raise SettingsError(
            f"{where}: one of a pair is missing.",
            fix="Give low with high and only_base with only_adapter, or leave both out.",
        )
    if row.low is not None and row.high is not None and not row.low <= row.difference <= row.high:
        raise SettingsError(
            f"{where}: adapter_score - base_score is {row.difference:g}, which doesn't lie between "
            f"low = {row.low:g} and high = {row.high:g}.",
            fix="Correct them, or leave low and high out.",
        )
    if row.only_base is None or row.only_adapter is None:
        return
    if row.metric != SOLVED or row.n is None or row.only_base + row.only_adapter > row.n:
        raise SettingsError(
            f"{where}: only_base and only_adapter count some of the n tasks of {SOLVED!r}.",
            fix="Give n, or leave both out.",
        )
    found = row.difference * row.n / 100
    if abs(found - (row.only_adapter - row.only_base)) > _ROUNDING:
        raise SettingsError(
            f"{where}: the scores differ by {found:.1f} tasks, only_adapter - only_base is "
            f"{row.only_adapter - row.only_base}.",
            fix="Correct them, or leave only_base and only_adapter out.",
        )


def _wrong(where: str, name: str, value: Any, fix: str) -> SettingsError:
    found = "is missing" if value is None else f"is {value!r}"
    return SettingsError(f"{where}: {name} {found}.", fix=fix)


def _with_row(text: str, row: Measurement, path: Path) -> str:
    """``text`` with ``row`` in place of the same comparison, else at its end."""
    rows = _parse(text, path)
    places = [place for place, old in enumerate(rows) if _same(old, row)]
    # Not splitlines: it also splits at characters that TOML allows inside a string.
    lines = text.rstrip("\n").split("\n") if text.strip() else []
    starts = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    if len(starts) != len(rows):
        raise SettingsError(
            f"{path}: only a file whose rows begin with a line [[measured]] can be added to.",
            fix="Write its rows so, or name another file.",
        )
    for place in reversed(places):
        start = starts[place]
        end = starts[place + 1] if place + 1 < len(starts) else len(lines)
        # Comments and blank lines before the next row belong to that one.
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        lines[start:end] = _lines(row) if place == places[0] else []
    if not places:
        lines += ["", *_lines(row)] if lines else _lines(row)
    new = "\n".join(lines) + "\n"
    if set(_parse(new, path)) != {old for old in rows if not _same(old, row)} | {row}:
        raise SettingsError(f"{path}: the row can't be put in without harm.", fix="Add it by hand.")
    return new


def _lines(row: Measurement) -> list[str]:
    values = {name: getattr(row, name) for name in _NAMES}
    return [
        "[[measured]]",
        *(f"{name} = {_toml(value)}" for name, value in values.items() if value is not None),
    ]


def _toml(value: object) -> str:
    # A JSON string is a TOML string too, but for DEL, which JSON leaves as it is.
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else repr(value)


def _replace(path: Path, text: str) -> None:
    handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(made).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
