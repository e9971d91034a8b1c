from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kiki.errors import RequestError, RoutingError
from routing.card import CARD_FILE, Card
from routing.domains import PACKAGED as TABLE
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.head import WEIGHTS_FILE
from routing.router import PACKAGED, RouteDecision, Router

OBVIOUS = [
    ("chat-fr", "Bonjour ! Peux-tu m'aider à écrire une carte d'anniversaire pour ma grand-mère ?"),
    ("reasoning", "If every zorp is a blick and no blick is green, can a zorp be green? Explain."),
    ("python", "How do I sort a list of dictionaries by a key in Python?"),
    ("cpp", "Why does my C++ class with a raw pointer member crash when I copy it?"),
    ("rust", "The Rust borrow checker rejects my struct that holds a reference to itself"),
    (
        "typescript",
        "How do I type a generic function in TypeScript that keeps the key's literal type?",
    ),
    ("shell", "bash one-liner to find all log files older than 30 days and gzip them"),
    ("sql", "Write a SQL query that returns the second highest salary of each department"),
    ("html-css", "How can I centre a card with CSS grid and make it shrink on phones?"),
    ("web-frontend", "My React component renders twice when I call setState inside useEffect"),
    ("web-backend", "How should I paginate a REST API endpoint built with Express?"),
    ("yaml-json", "Convert this YAML document to JSON and keep the order of the keys"),
    ("docker", "My Docker container exits at once after docker run, how do I see why?"),
    ("devops", "Write a Kubernetes deployment with a rolling update and a readiness probe"),
    ("lua-upy", "How do I blink an LED in MicroPython on a Raspberry Pi Pico?"),
    ("security", "How do I prevent SQL injection and XSS, and test for these vulnerabilities?"),
    ("math", "Compute the eigenvalues of a 2x2 symmetric matrix and prove they are real"),
    ("ml-training", "My validation loss rises after epoch 3 while fine-tuning BERT in PyTorch"),
    ("llm-ops", "How do I serve a quantised LLM with vLLM on two GPUs at high throughput?"),
    ("llm-orch", "Build a LangChain RAG agent that calls tools and cites its documents"),
    ("music-audio", "Which chord progression and reverb settings suit a sad piano ballad?"),
    ("dsp", "Design a digital FIR low-pass filter and plot its FFT magnitude response"),
    ("components", "Which cheap MOSFET can replace the IRLZ44N, and where is its datasheet?"),
    ("electronics", "Explain how an op-amp inverting amplifier sets its gain with two resistors"),
    ("power", "Choose the inductor for a 24 V to 5 V buck converter at 3 A"),
    ("emc", "How do I pass the CISPR 32 radiated emissions test with a switching supply?"),
    ("embedded", "How do I debounce a button in a FreeRTOS firmware task with an interrupt?"),
    ("stm32", "Configure TIM2 PWM on an STM32F4 with HAL and CubeMX"),
    ("platformio", "How do I set a custom partition table in platformio.ini for two environments?"),
    ("iot", "Publish temperature readings over MQTT with TLS and reconnect when the wifi drops"),
    ("freecad", "How do I pad a sketch and fillet its edges in FreeCAD's Part Design workbench?"),
    ("kicad-dsl", "Write a .kicad_mod footprint s-expression for a 0603 resistor"),
    (
        "kicad-pcb",
        "How do I route a differential pair in KiCad's PCB editor and pour a ground zone?",
    ),
    ("spice", "Write a SPICE subcircuit netlist for an ideal diode model"),
    ("spice-sim", "ngspice says timestep too small during my transient simulation"),
]
MERGED = [(name, prompt) for name, prompt in OBVIOUS if name in ("kicad-dsl", "kicad-pcb", "power")]
SEVERAL = [
    "Write a Python script that runs a SQL query on Postgres and a bash cron job that starts it",
    "Write a C++ class that wraps SQLite, with the SQL schema and prepared statements",
    "Dockerfile for a Rust web server, and a GitHub Actions pipeline that deploys it to Kubernetes",
    "Explique en français comment simuler ce filtre avec ngspice depuis un script Python",
]
OUTSIDE = [
    "what will the weather be like in Lisbon tomorrow",
    "book me a table for two at an italian restaurant tonight",
    "how many calories are there in a slice of cheesecake",
    "who won the world cup in 1998",
    "remind me to call my sister on sunday",
    "what's the balance of my savings account",
]

VECTORS = arrays(
    np.float32,
    768,
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
    fill=st.just(np.float32(0.0)),
)


@pytest.fixture(scope="module")
def router(embedder: Embedder) -> Router:
    return Router.load(embedding_id=embedder.id)


@pytest.fixture(scope="module")
def packaged() -> Router:
    return Router.load(embedding_id=Card.read(PACKAGED).embedding_id)


def routes(router: Router, embedder: Embedder, prompts: Sequence[str]) -> list[RouteDecision]:
    vectors = embedder.embed(prompts)
    return [router.route(vector, text) for vector, text in zip(vectors, prompts, strict=True)]


def test_plain_prompts_of_every_domain_go_to_it(router: Router, embedder: Embedder) -> None:
    decisions = routes(router, embedder, [prompt for _, prompt in OBVIOUS])
    wrong = [
        (name, decision.scores[:2])
        for (name, _), decision in zip(OBVIOUS, decisions, strict=True)
        if not decision.active or decision.active[0].name != router.table.domain(name).output
    ]
    assert wrong == []


def test_a_merged_output_names_the_nearer_member(router: Router, embedder: Embedder) -> None:
    decisions = routes(router, embedder, [prompt for _, prompt in MERGED])
    assert [decision.active[0].member for decision in decisions] == [name for name, _ in MERGED]


def test_a_prompt_about_several_domains_activates_several(
    router: Router, embedder: Embedder
) -> None:
    for prompt, decision in zip(SEVERAL, routes(router, embedder, SEVERAL), strict=True):
        assert len(decision.active) >= 2, (prompt, decision.scores[:4])


def test_prompts_outside_all_domains_fall_back_to_the_base(
    router: Router, embedder: Embedder
) -> None:
    for prompt, decision in zip(OUTSIDE, routes(router, embedder, OUTSIDE), strict=True):
        assert decision.fallback, (prompt, decision.active)
        assert decision.in_domain < 0.5
        assert not decision.clear


def test_white_space_before_a_prompt_makes_no_difference(
    router: Router, embedder: Embedder
) -> None:
    prompt = OBVIOUS[0][1]
    plain, indented = routes(router, embedder, [prompt, " \n" * 5000 + prompt])
    assert indented == plain


def test_threshold_and_top_k_are_the_callers(router: Router, embedder: Embedder) -> None:
    text = SEVERAL[0]
    vector = embedder.embed([text])[0]
    every = router.route(vector, text, threshold=0.0)
    assert len(every.active) == 4
    assert len(router.route(vector, text, threshold=0.0, top_k=1).active) == 1
    assert router.route(vector, text, threshold=1.0).fallback
    low = router.route(vector, text, threshold=0.12)
    assert low.threshold == 0.12
    assert all(domain.score >= 0.12 for domain in low.active)
    assert low.scores == every.scores


def test_an_explicit_threshold_opens_the_gate(router: Router, embedder: Embedder) -> None:
    text = OUTSIDE[0]
    vector = embedder.embed([text])[0]
    assert router.route(vector, text).fallback
    assert not router.route(vector, text, threshold=0.0).fallback


def test_the_gateways_threshold_leaves_the_gate_closed(embedder: Embedder) -> None:
    low = Router.load(embedding_id=embedder.id, threshold=1e-6)
    assert all(decision.fallback for decision in routes(low, embedder, OUTSIDE))
    several = routes(low, embedder, [prompt for _, prompt in OBVIOUS])
    assert {len(decision.active) for decision in several} == {4}
    assert {decision.threshold for decision in several} == {1e-6}


def test_within_limits_what_may_be_active(router: Router, embedder: Embedder) -> None:
    text = "How do I sort a list of dictionaries by a key in Python?"
    vector = embedder.embed([text])[0]
    creative = router.table.intent_outputs("creative")
    limited = router.route(vector, text, threshold=0.0, within=creative)
    assert {domain.name for domain in limited.active} <= creative
    assert limited.scores[0].name == "python"
    assert limited.confidence < router.route(vector, text).confidence
    assert router.route(vector, text, within=frozenset()).fallback


@settings(deadline=None)
@given(
    vector=VECTORS,
    text=st.text(),
    threshold=st.none() | st.floats(0, 1),
    top_k=st.integers(1, 4),
)
def test_any_vector_gives_at_most_four_domains_whose_weights_sum_to_one(
    packaged: Router, vector: np.ndarray, text: str, threshold: float | None, top_k: int
) -> None:
    decision = packaged.route(vector, text, threshold=threshold, top_k=top_k)
    scores = [score.score for score in decision.scores]
    assert len(scores) == 31
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in (*scores, decision.in_domain, decision.confidence))
    assert len(decision.active) <= top_k
    assert decision.fallback is (decision.active == ())
    if decision.active:
        assert sum(domain.weight for domain in decision.active) == pytest.approx(1)
    for domain in decision.active:
        assert domain.score >= decision.threshold
        assert domain.member in packaged.table.members(domain.name)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 5}, "top_k"),
    ],
)
def test_limits_out_of_range_are_refused(
    packaged: Router, arguments: dict[str, float], param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        packaged.route(np.zeros(768, np.float32), "", **arguments)  # type: ignore[arg-type]
    assert refused.value.param == param


def test_what_is_no_vector_is_refused(packaged: Router) -> None:
    for wrong in (np.zeros(384, np.float32), np.full(768, np.nan, np.float32)):
        with pytest.raises(RoutingError, match="768 finite"):
            packaged.route(wrong, "")
    with pytest.raises(RoutingError, match="'pyhton'"):
        packaged.route(np.zeros(768, np.float32), "", within=frozenset({"pyhton"}))


def test_another_embedder_is_refused_by_name() -> None:
    with pytest.raises(RoutingError, match="minilm"):
        Router.load(embedding_id="minilm")


def test_another_domain_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "domains.toml"
    text = TABLE.read_text(encoding="utf-8")
    path.write_text(text.replace('output = "rust"', 'output = "oxide"'), encoding="utf-8")
    with pytest.raises(RoutingError, match="only one of them has oxide, rust"):
        Router.load(table=load_domains(path), embedding_id=Card.read(PACKAGED).embedding_id)


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    embedding_id = Card.read(PACKAGED).embedding_id
    folder = tmp_path / "weights"
    shutil.copytree(PACKAGED, folder)
    weights = folder / WEIGHTS_FILE
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RoutingError, match="sha256"):
        Router.load(folder, embedding_id=embedding_id)
    weights.unlink()
    with pytest.raises(RoutingError, match="can't be read"):
        Router.load(folder, embedding_id=embedding_id)
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    del card["threshold"]
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(RoutingError, match="no router card"):
        Router.load(folder, embedding_id=embedding_id)
    (folder / CARD_FILE).unlink()
    with pytest.raises(RoutingError, match="can't be read"):
        Router.load(folder, embedding_id=embedding_id)
