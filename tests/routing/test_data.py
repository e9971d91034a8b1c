from __future__ import annotations

import json
from collections import Counter

import pytest

from routing.domains import load_domains
from routing.training.rows import DATA, read_packaged

PER_DOMAIN = 80
LANGUAGES = {"en", "fr", "mixed"}


def lines(pattern: str) -> list[tuple[str, dict[str, object]]]:
    return [
        (f"{path.name}:{number}", json.loads(line))
        for path in sorted(DATA.glob(pattern))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    ]


def prompts() -> list[tuple[str, dict[str, object]]]:
    return [(where, row) for where, row in lines("*.jsonl") if "prompt" in row]


def test_every_line_is_a_labelled_prompt_or_conversation() -> None:
    table = load_domains()
    known = {domain.name for domain in table.domains}
    for where, row in lines("*.jsonl"):
        domains = row["domains"]
        assert isinstance(domains, list), where
        assert set(domains) <= known, where
        assert len(set(domains)) == len(domains), where
    for where, row in prompts():
        assert set(row) == {"prompt", "domains", "lang", "kind"}, where
        assert str(row["prompt"]).strip(), where
        assert row["lang"] in LANGUAGES, where


def test_no_prompt_stands_there_twice() -> None:
    seen = Counter(" ".join(str(row["prompt"]).casefold().split()) for _, row in prompts())
    assert [prompt for prompt, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("name", [domain.name for domain in load_domains().domains])
def test_a_domain_has_at_least_80_prompts(name: str) -> None:
    rows = [row for _, row in lines(f"{name}.jsonl")]
    assert len(rows) >= PER_DOMAIN
    for row in rows:
        assert isinstance(row["domains"], list)
        assert name in row["domains"]


def test_out_of_scope_has_no_label_and_multi_has_several() -> None:
    assert len(lines("out-of-scope.jsonl")) >= PER_DOMAIN
    assert all(row["domains"] == [] for _, row in lines("out-of-scope.jsonl"))
    multi = [row["domains"] for _, row in lines("multi.jsonl")]
    assert len(multi) >= PER_DOMAIN
    assert all(isinstance(domains, list) and len(domains) >= 2 for domains in multi)


def test_follow_ups_end_with_the_callers_turn() -> None:
    for where, row in lines("followups.jsonl"):
        messages = row["messages"]
        assert isinstance(messages, list), where
        assert len(messages) >= 3, where
        assert messages[-1]["role"] == "user", where
        assert isinstance(row["keeps"], bool), where


def test_training_reads_all_of_it() -> None:
    assert len(read_packaged(load_domains())) == len(prompts())
