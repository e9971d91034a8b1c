"""Task files: prompts, each with what a right answer must hold, run with and without an adapter."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from adapters.mix import BASE, Mix
from kiki.errors import AdapterError
from kiki.names import near

MAX_TOKENS = 160
_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_CHECKS = ("contains", "regex", "equals", "number")
_FIELDS = ("prompt", "expect", "example", "system", "max_tokens")


@dataclass(frozen=True, slots=True)
class Expect:
    """What a right answer holds; every check that is given must pass.

    ``contains``: all of these texts, upper and lower case told apart. ``regex``: found anywhere
    (``.`` also matches a line's end, ``^`` and ``$`` match at lines). ``equals``: the whole answer
    without white space around it. ``number``: the answer's last number, within ``tolerance``.
    """

    contains: tuple[str, ...] = ()
    regex: re.Pattern[str] | None = None
    equals: str | None = None
    number: float | None = None
    tolerance: float = 0.0

    def met_by(self, answer: str) -> bool:
        """Whether ``answer`` passes every check."""
        return (
            all(text in answer for text in self.contains)
            and (self.regex is None or self.regex.search(answer) is not None)
            and (self.equals is None or answer.strip() == self.equals)
            and (self.number is None or self._is_number(answer))
        )

    def _is_number(self, answer: str) -> bool:
        found = _NUMBER.findall(answer)
        assert self.number is not None
        if not found:
            return False
        return abs(float(found[-1].replace(",", "")) - self.number) <= self.tolerance


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt, and how its answer is judged."""

    prompt: str
    expect: Expect
    system: str = ""
    max_tokens: int = MAX_TOKENS

    def request(self, mix: Mix) -> GenerateRequest:
        """The task for an engine: greedy, so that a second run gives the same answer."""
        system = (Message("system", self.system),) if self.system else ()
        sampling = Sampling(max_tokens=self.max_tokens, temperature=0.0, seed=0)
        return GenerateRequest((*system, Message("user", self.prompt)), mix, sampling)


@dataclass(frozen=True, slots=True)
class TaskFile:
    """The tasks of a file; ``sha256`` is that of its bytes."""

    name: str
    tasks: tuple[Task, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task under both: the answers, and whether each is right."""

    task: Task
    base_answer: str
    adapter_answer: str

    @property
    def base_solved(self) -> bool:
        return self.task.expect.met_by(self.base_answer)

    @property
    def adapter_solved(self) -> bool:
        return self.task.expect.met_by(self.adapter_answer)


def read_tasks(path: Path) -> TaskFile:
    """Read a task file, one JSON object a line.

    A row's ``example``, where it has one, is a right answer: it must pass what the row expects.
    Raises AdapterError with the line and the fix.
    """
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"The task file {path} can't be read: {error}.") from error
    tasks = tuple(
        _task(line, f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    if not tasks:
        raise AdapterError(f"{path} holds no task.", fix=_EXAMPLE)
    return TaskFile(path.stem, tasks, hashlib.sha256(data).hexdigest())


async def run_tasks(
    engine: Engine,
    adapter: str,
    tasks: Sequence[Task],
    clean: Callable[[str], str] = str,
) -> AsyncGenerator[Outcome, None]:
    """Give each task to the base and to the adapter, and yield both answers, ``clean``ed.

    One task at a time: rows of other tasks in the same batch would move the last bits of the
    logits, and with them now and then an answer.
    """
    mixes = (BASE, Mix.single(adapter))
    for task in tasks:
        base, own = await complete(engine, [task.request(mix) for mix in mixes])
        yield Outcome(task, clean(base.text), clean(own.text))


def _task(line: str, where: str) -> Task:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise AdapterError(f"{where} isn't JSON: {error}.", fix=_EXAMPLE) from error
    if not isinstance(row, dict):
        raise AdapterError(f"{where} isn't a JSON object.", fix=_EXAMPLE)
    _known(row, _FIELDS, where)
    prompt, system = row.get("prompt"), row.get("system", "")
    if not isinstance(prompt, str) or not prompt.strip() or not isinstance(system, str):
        raise AdapterError(f"{where} has no text under 'prompt', or system is none.", fix=_EXAMPLE)
    most = row.get("max_tokens", MAX_TOKENS)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise AdapterError(f"{where}: max_tokens is {most!r}.", fix="Give a whole number from 1.")
    expect = _expect(row.get("expect"), where)
    example = row.get("example")
    if example is not None and not (isinstance(example, str) and expect.met_by(example)):
        raise AdapterError(
            f"{where}: its own example doesn't pass: {example!r}.",
            fix="Correct the example or what is expected.",
        )
    return Task(prompt, expect, system, most)


def _expect(expect: Any, where: str) -> Expect:
    if isinstance(expect, dict):
        _known(expect, (*_CHECKS, "tolerance"), where)
    if not isinstance(expect, dict) or not any(name in expect for name in _CHECKS):
        raise AdapterError(f"{where}: 'expect' says nothing to look for.", fix=_EXAMPLE)
    contains = expect.get("contains", [])
    contains = [contains] if isinstance(contains, str) else contains
    if not isinstance(contains, list) or not all(isinstance(t, str) and t for t in contains):
        raise AdapterError(f"{where}: contains is {contains!r}.", fix="Give a text, or a list.")
    equals = expect.get("equals")
    if equals is not None and not isinstance(equals, str):
        raise AdapterError(f"{where}: equals is {equals!r}.", fix="Give a text.")
    return Expect(
        tuple(contains),
        _regex(expect.get("regex"), where),
        equals,
        _number(expect.get("number"), "number", where),
        _number(expect.get("tolerance"), "tolerance", where) or 0.0,
    )


def _regex(pattern: Any, where: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern, re.DOTALL | re.MULTILINE)
    except (re.error, TypeError) as error:
        raise AdapterError(
            f"{where}: regex {pattern!r}: {error}.", fix="Give a regular expression of Python's."
        ) from error


def _number(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AdapterError(f"{where}: {name} is {value!r}.", fix="Give a number.")
    return float(value)


def _known(row: dict[str, Any], names: Sequence[str], where: str) -> None:
    for name in row:
        if name not in names:
            raise AdapterError(
                f"{where}: there is no field {name!r}.{near(name, names)}",
                fix=f"Fields: {', '.join(names)}.",
            )


_EXAMPLE = 'A row is like {"prompt": "What is 6 * 7?", "expect": {"number": 42}}.'
