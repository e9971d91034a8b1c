from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import SettingsError
from routing.advisor import NERVE_WML, Advisor, load, load_nerve_wml
from routing.conversation import Conversations
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.router import Router

TABLE = load_domains()
PROMPT = "bash one-liner to find all log files older than 30 days"
Counts = Counter[str]


def advisor(
    advise: Callable[[str], Mapping[str, float]] | None,
    *,
    alpha: float = 0.5,
    budget_s: float = 5.0,
    counts: Counts | None = None,
) -> Advisor:
    counted = Counter[str]() if counts is None else counts
    return Advisor(
        advise, TABLE, alpha=alpha, budget_s=budget_s, count=lambda name: counted.update([name])
    )


def no_opinion(prompt: str) -> Mapping[str, float]:
    return {}


def raises(prompt: str) -> Mapping[str, float]:
    raise RuntimeError("out of order")


def exits(prompt: str) -> Mapping[str, float]:
    raise SystemExit(3)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")

    __repr__ = __str__


class Speechless(Mapping[str, float]):
    def __getitem__(self, name: str) -> float:
        raise SpeechlessError

    def __iter__(self) -> Iterator[str]:
        raise SpeechlessError

    def __len__(self) -> int:
        return 1


def raises_without_words(prompt: str) -> Mapping[str, float]:
    raise SpeechlessError


@pytest.fixture(scope="module")
def router(embedder: Embedder) -> Router:
    return Router.load(embedding_id=embedder.id)


def test_advice_moves_the_route(router: Router, embedder: Embedder) -> None:
    conversations = Conversations(
        router, embedder, advisor(lambda _: {"rust": 30.0, "shell": -30.0})
    )
    routed = conversations.route(PROMPT)
    assert routed.decision.scores[0].name == "rust"
    assert routed.advised


@given(alpha=st.floats(0, 1, width=32), raw=st.floats(-8, 8, width=32), word=st.floats(-8, 8))
def test_the_blend_is_the_documented_one_and_leaves_the_others(
    alpha: float, raw: float, word: float
) -> None:
    made = advisor(lambda _: {"sql": word}, alpha=alpha)
    log_odds = np.full(len(TABLE.outputs), raw, np.float32)
    advice = made.advice(PROMPT)
    assert advice is not None
    blended = made.blend(log_odds, advice)
    place = TABLE.outputs.index("sql")
    assert blended[place] == pytest.approx((1 - alpha) * raw + alpha * word, abs=1e-4)
    np.testing.assert_array_equal(np.delete(blended, place), np.delete(log_odds, place))


def test_members_of_a_merged_output_advise_it_by_the_highest() -> None:
    advice = advisor(lambda _: {"kicad-dsl": -1.0, "kicad-pcb": 2.0}).advice(PROMPT)
    assert advice is not None
    assert advice[TABLE.outputs.index("kicad")] == 2


@pytest.mark.parametrize(
    ("advise", "outcome"),
    [
        (None, "missing"),
        (raises, "raised"),
        (exits, "raised"),
        (raises_without_words, "raised"),
        (lambda _: Speechless(), "unusable"),
        (lambda _: {"pyhton": 1.0}, "unusable"),
        (lambda _: {"python": "high"}, "unusable"),
        (lambda _: {"python": float("inf")}, "unusable"),
        (lambda _: None, "unusable"),
    ],
)
def test_one_that_fails_leaves_every_bit_as_it_was(
    router: Router,
    embedder: Embedder,
    advise: Callable[[str], Mapping[str, float]] | None,
    outcome: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = Counter[str]()
    conversations = Conversations(router, embedder, advisor(advise, counts=counts))
    alone = Conversations(router, embedder).route(PROMPT).decision
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            routed = conversations.route(PROMPT)
            assert routed.decision == alone
            assert not routed.advised
    assert counts == {outcome: 3}
    assert len(caplog.records) == 1


def test_without_a_thread_for_it_there_is_no_advice_and_later_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    counts = Counter[str]()
    advised = advisor(no_opinion, counts=counts)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        assert advised.advice(PROMPT) is None
    assert advised.advice(PROMPT) is not None
    assert counts == {"busy": 1, "used": 1}


def test_no_opinion_changes_nothing(router: Router, embedder: Embedder) -> None:
    advised = Conversations(router, embedder, advisor(no_opinion)).route(PROMPT)
    assert advised.decision == Conversations(router, embedder).route(PROMPT).decision
    assert advised.advised


def test_a_slow_one_is_waited_for_no_longer_than_its_budget_and_has_one_thread() -> None:
    released, counts = threading.Event(), Counter[str]()

    def waits(prompt: str) -> Mapping[str, float]:
        released.wait(60)
        return {"rust": 1.0}

    made = advisor(waits, budget_s=0.02, counts=counts)
    for _ in range(5):
        assert made.advice(PROMPT) is None
    threads = [thread for thread in threading.enumerate() if thread.name == "kiki-advisor"]
    assert len(threads) == 1
    assert counts == {"slow": 1, "busy": 4}
    released.set()
    threads[0].join(60)
    patient = advisor(waits, counts=counts)
    assert patient.advice(PROMPT) is not None


def test_a_lazy_answer_is_read_within_the_budget() -> None:
    released, counts = threading.Event(), Counter[str]()

    class Waits(Mapping[str, float]):
        def __getitem__(self, name: str) -> float:
            return 1.0

        def __iter__(self) -> Iterator[str]:
            released.wait(60)
            return iter(["rust"])

        def __len__(self) -> int:
            return 1

    made = advisor(lambda _: Waits(), budget_s=0.02, counts=counts)
    assert made.advice(PROMPT) is None
    assert counts == {"slow": 1}
    released.set()


def test_one_that_exits_when_it_is_imported_is_no_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "leaving_advisor.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("leaving_advisor:opinion") is None


def test_a_module_is_loaded_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("an_advisor")
    module.opinion = no_opinion  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "an_advisor", module)
    assert load("an_advisor:opinion") is no_opinion
    assert load("an_advisor:number") is None
    assert load("an_advisor:nothing") is None
    assert load("no_such_module_at_all:opinion") is None
    with pytest.raises(SettingsError, match="module:function"):
        load("an_advisor")


def test_nerve_wml_gets_token_ids_and_numbers_domains_by_alphabet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[int]] = []

    class KikiNerveAdvisor:
        def advise(self, tokens: list[int]) -> dict[int, float]:
            seen.append(tokens)
            return {0: 1.5, 33: 2.5, 34: 9.0}

    path, name = NERVE_WML.split(":")
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:depth]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    setattr(sys.modules[path], name, KikiNerveAdvisor)
    advise = load_nerve_wml(TABLE, lambda text: [len(text)])
    assert advise is not None
    assert advise("four") == {"chat-fr": 1.5, "yaml-json": 2.5}
    assert seen == [[4]]


def test_nerve_wml_that_is_not_installed_is_no_advice() -> None:
    assert load_nerve_wml(TABLE, lambda text: []) is None
