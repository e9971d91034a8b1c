from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.evaluation.measurement import PERPLEXITY, SOLVED, Measurement, is_worse, mcnemar
from adapters.evaluation.table import put_row, read_table
from adapters.policy import SHIPPED_POLICY, Policy
from kiki.errors import SettingsError
from kiki.names import same_base

REFERENCE = "Qwen3.6-35B-A3B-Q4_K_M"
SHIPPED = Path(SHIPPED_POLICY).parent / "shipped"
ROW = Measurement(
    adapter="python",
    base_model="Qwen/Qwen3.6-35B-A3B",
    benchmark="MBPP",
    metric=SOLVED,
    base_score=73.0,
    adapter_score=66.0,
    higher_is_better=True,
    source="measured here",
    date=date(2026, 11, 21),
)
VALID = """
[[measured]]
adapter = "python"
base_model = "Qwen/Qwen3.6-35B-A3B"
benchmark = "MBPP"
metric = "percent solved"
base_score = 73.0
adapter_score = 66.0
higher_is_better = true
source = "measured here"
date = 2026-11-21
"""

# Measurements as they come about: n tasks, each solved by both, one or none.
outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def solved(pairs: list[tuple[bool, bool]], *, paired: bool) -> Measurement:
    n = len(pairs)
    row = replace(
        ROW,
        base_score=100 * sum(base for base, _ in pairs) / n,
        adapter_score=100 * sum(own for _, own in pairs) / n,
        n=n,
    )
    if not paired:
        return row
    return replace(
        row,
        only_base=sum(base and not own for base, own in pairs),
        only_adapter=sum(own and not base for base, own in pairs),
    )


def test_the_reference_adapters_that_lost_run_on_their_base():
    verdicts = Policy.load().verdicts(REFERENCE)
    assert set(verdicts) == {"python", "typescript", "math", "reasoning"}
    assert str(verdicts["python"]) == (
        "base 73.0 > adapter 66.0 on MBPP (percent solved, n unknown)"
    )


def test_a_result_on_one_base_says_nothing_of_another():
    policy = Policy.load()
    assert policy.base_only("python", REFERENCE)
    assert policy.base_only("python", "SmolLM2-135M-Instruct.Q4_1") is None
    assert policy.base_only("python", "") is None


def test_the_shipped_adapters_are_in_the_policy_with_their_cards_numbers():
    rows = {
        row.adapter: row
        for row in Policy.load().rows
        if row.metric == PERPLEXITY and same_base(row.base_model, "SmolLM2-135M-Instruct")
    }
    cards = {path.parent.name: json.loads(path.read_text()) for path in SHIPPED.glob("*/card.json")}
    assert set(rows) == set(cards)
    for name, card in cards.items():
        assert rows[name].base_score == card["base_perplexity"]
        assert rows[name].adapter_score == card["adapter_perplexity"]
        assert rows[name].n == card["held_out_rows"]


def test_nothing_measured_is_nothing_base_only():
    assert Policy().verdicts(REFERENCE) == {}
    assert Policy.load().base_only("rust", REFERENCE) is None


def test_a_good_perplexity_does_not_outweigh_a_lost_benchmark():
    text = replace(
        ROW, metric=PERPLEXITY, base_score=20.0, adapter_score=8.0, higher_is_better=False
    )
    assert Policy((text, ROW)).base_only("python", REFERENCE)
    assert Policy((text,)).base_only("python", REFERENCE) is None


def test_a_bad_perplexity_counts_only_where_no_task_was_measured():
    text = replace(
        ROW, metric=PERPLEXITY, base_score=8.0, adapter_score=20.0, higher_is_better=False
    )
    won = replace(ROW, base_score=66.0, adapter_score=73.0)
    assert Policy((text,)).base_only("python", REFERENCE)
    assert Policy((text, won)).base_only("python", REFERENCE) is None


def test_one_lost_benchmark_is_enough_and_is_the_one_named():
    won = replace(ROW, benchmark="HumanEval", base_score=80.0, adapter_score=90.0)
    verdict = Policy((won, ROW)).base_only("python", REFERENCE)
    assert verdict is not None
    assert verdict.because == (ROW,)


def test_a_small_difference_over_few_tasks_proves_nothing():
    assert is_worse(ROW)
    assert not is_worse(replace(ROW, n=50))
    assert is_worse(replace(ROW, n=500))
    assert not is_worse(replace(ROW, adapter_score=72.9, n=500))


def test_pairs_prove_more_than_two_separate_runs():
    few = replace(ROW, base_score=60.0, adapter_score=50.0, n=100)
    assert not is_worse(few)
    assert is_worse(replace(few, only_base=10, only_adapter=0))
    assert not is_worse(replace(few, only_base=30, only_adapter=20))


def test_an_interval_that_holds_zero_proves_nothing():
    row = replace(
        ROW, metric=PERPLEXITY, base_score=8.0, adapter_score=8.5, higher_is_better=False, n=20
    )
    assert is_worse(row)
    assert is_worse(replace(row, low=0.1, high=0.9))
    assert not is_worse(replace(row, low=-0.2, high=1.2))


def test_mcnemars_exact_test_gives_the_binomial_tail():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(1 / 32)
    assert mcnemar(7, 3) == pytest.approx((120 + 45 + 10 + 1) / 1024)
    assert 0 < mcnemar(3000, 2500) < 1e-10


@given(outcomes, st.booleans(), st.data())
@settings(max_examples=300)
def test_losing_one_more_task_never_makes_an_adapter_usable_again(pairs, paired, data):
    place = data.draw(st.integers(0, len(pairs) - 1))
    lost = [*pairs]
    lost[place] = (lost[place][0], False)
    before = Policy((solved(pairs, paired=paired),)).base_only("python", REFERENCE)
    after = Policy((solved(lost, paired=paired),)).base_only("python", REFERENCE)
    assert after or not before


@given(
    st.sampled_from([(SOLVED, True), ("bleu", True), (PERPLEXITY, False), ("loss", False)]),
    st.floats(1, 100),
    st.floats(1, 100),
    st.floats(0, 99),
    st.none() | st.integers(1, 2000),
    st.lists(st.sampled_from([ROW, replace(ROW, base_score=1.0), replace(ROW, n=30)]), max_size=2),
)
def test_a_worse_score_never_turns_base_only_off(metric, base, own, drop, n, others):
    name, higher = metric
    worse = max(0.0, own - drop) if higher else own + drop
    row = replace(ROW, metric=name, higher_is_better=higher, base_score=base, n=n)
    before = Policy((replace(row, adapter_score=own), *others))
    after = Policy((replace(row, adapter_score=worse), *others))
    if before.base_only("python", REFERENCE):
        assert after.base_only("python", REFERENCE)


@given(outcomes)
def test_an_adapter_that_solves_all_that_its_base_solves_is_never_base_only(pairs):
    kept = [(base, own or base) for base, own in pairs]
    for paired in (False, True):
        assert not is_worse(solved(kept, paired=paired))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("73.0", "nan", "base_score is nan"),
        ("73.0", "730", "goes from 0 to 100"),
        ("73.0", '"73"', "Give a finite number"),
        ("base_score = 73.0\n", "", "base_score is missing"),
        ("higher_is_better = true", "higher_is_better = false", "it is true"),
        ("2026-11-21", '"2026-11-21"', "without quotes"),
        ("source", "sauce", "Did you mean source"),
        ('adapter = "python"', 'adapter = " "', "Give a text in quotes"),
        ("date =", "n = 0\ndate =", "Leave n out where it isn't known"),
        ("date =", "low = -1.0\ndate =", "low with high"),
        ("date =", "low = -1.0\nhigh = 1.0\ndate =", "doesn't lie between"),
        ("date =", "n = 100\nonly_base = 9\nonly_adapter = 5\ndate =", "differ by -7.0 tasks"),
        ("date =", "only_base = 9\nonly_adapter = 2\ndate =", "Give n"),
        ("[[measured]]", "[measured]", "[[measured]]"),
        ("[[measured]]", "[[measure]]", "[[measured]]"),
        ("73.0", "73,0", "line 7"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_its_fix(tmp_path, old, new, said):
    file = tmp_path / "mine.toml"
    assert old in VALID
    file.write_text(VALID.replace(old, new))
    with pytest.raises(SettingsError) as caught:
        Policy.load(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_a_bad_row_among_good_ones_is_found_by_its_number(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(VALID + VALID.replace("66.0", "-1"))
    with pytest.raises(SettingsError, match=r"row 2 \(python, MBPP\): adapter_score is -1"):
        Policy.load(file)


def test_a_policy_file_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="unset it to use the shipped one"):
        Policy.load(tmp_path / "none.toml")


texts = st.text(min_size=1, max_size=20).filter(lambda text: text == text.strip() != "")
measurements = st.builds(
    replace,
    st.just(ROW),
    adapter=texts,
    benchmark=texts,
    source=texts,
    base_score=st.floats(0, 100),
    adapter_score=st.floats(0, 100),
    n=st.none() | st.integers(1, 10**6),
    date=st.dates(),
)


@given(st.lists(measurements, max_size=6))
@settings(max_examples=100)
def test_written_rows_are_read_back_as_they_were(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("policy") / "mine.toml"
    file.write_text("# mine\n")
    for row in rows:
        put_row(file, row)
    last = {(row.adapter, row.benchmark): row for row in rows}
    assert set(read_table(file)) == set(last.values())
    assert file.read_text().startswith("# mine\n")


def test_a_new_row_takes_the_place_of_the_same_comparison_and_keeps_the_comments(tmp_path):
    file = tmp_path / "mine.toml"
    other = VALID.replace("MBPP", "HumanEval")
    file.write_text(f"# top\n{VALID}\n# why HumanEval\n{other}")
    put_row(file, replace(ROW, base_model="Qwen3.6-35B-A3B-Q4_K_M.gguf", adapter_score=70.0))
    text = file.read_text()
    assert text.index("# top") < text.index("70.0") < text.index("# why HumanEval")
    assert [row.adapter_score for row in read_table(file)] == [70.0, 66.0]


def test_a_new_file_begins_as_a_copy_of_the_shipped_one(tmp_path):
    file = tmp_path / "folder" / "mine.toml"
    put_row(file, replace(ROW, benchmark="my tasks"), start_from=SHIPPED_POLICY)
    assert read_table(file) == (*Policy.load().rows, replace(ROW, benchmark="my tasks"))


def test_rows_written_in_a_way_that_cannot_be_kept_are_left_alone(tmp_path):
    file = tmp_path / "mine.toml"
    fields = ", ".join(line for line in VALID.splitlines() if "=" in line)
    file.write_text(f"measured = [{{ {fields} }}]\n")
    before = file.read_bytes()
    assert read_table(file) == (ROW,)
    with pytest.raises(SettingsError, match="begin with a line"):
        put_row(file, replace(ROW, benchmark="my tasks"))
    assert file.read_bytes() == before
