"""Requests of every kind that the dashboards show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

_CHAT = "/v1/chat/completions"
_QUESTIONS = (
    "How do I find all files over 100 MB in bash?",
    "Write a SQL query that counts the orders of each customer.",
    "Explique-moi simplement ce qu'est un routeur.",
    "Sort a list of tuples by the second item in Python.",
    "Simulate an RC low-pass filter in SPICE.",
)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request and its status; 0 where nothing answered."""

    what: str
    status: int


def traffic(gateway: str, rounds: int | None = None) -> Iterator[Sent]:
    """Send requests one after the other, for ever or for so many rounds, and tell of each."""
    with httpx.Client(base_url=gateway, timeout=300, trust_env=False) as client:
        for number in count() if rounds is None else range(rounds):
            for what, path, body in _round(number):
                try:
                    status = client.post(path, json=body).status_code
                except httpx.TransportError:
                    status = 0
                yield Sent(what, status)


def _round(number: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    question = _QUESTIONS[number % len(_QUESTIONS)]
    user = {"user": f"visitor-{number % 3}"}
    yield "a streamed chat", _CHAT, _ask(question, max_tokens=24) | user | {"stream": True}
    before = [("user", question), ("assistant", "Like this:"), ("user", "And shorter?")]
    yield "a follow-up", _CHAT, _said(before, max_tokens=16) | user
    note = f"My project number {number} is called Blue Heron and is written in Rust."
    yield "something to remember", _CHAT, _ask(note, max_tokens=4) | user
    yield "a recall", _CHAT, _ask("What is my project called, Blue Heron?", max_tokens=16) | user
    mix = {"adapters": {"shell": 0.7, "python": 0.3}, "memory": False}
    yield "a blend", _CHAT, _ask(question, max_tokens=12, kiki=mix | {"plan": "blend"})
    panel = {"adapters": {"shell": 0.5, "python": 0.5}, "memory": False, "plan": "panel"}
    yield "a panel", _CHAT, _ask("Is 17 a prime number? Answer yes or no.", kiki=panel)
    look = {"antibias": True, "memory": False}
    yield "a look for bias", _CHAT, _ask("Are nurses always women?", max_tokens=24, kiki=look)
    body = {"model": "base", "prompt": "One, two, three,", "max_tokens": 6}
    yield "a text completion", "/v1/completions", body
    yield "a model that isn't there", _CHAT, _ask("hi") | {"model": "no-such-model"}


def _ask(question: str, max_tokens: int = 16, **fields: Any) -> dict[str, Any]:
    return _said([("user", question)], max_tokens) | fields


def _said(messages: list[tuple[str, str]], max_tokens: int) -> dict[str, Any]:
    return {
        "model": "micro-kiki",
        "messages": [{"role": role, "content": content} for role, content in messages],
        "max_tokens": max_tokens,
    }
