from __future__ import annotations

import pytest

from adapters.mix import BASE, Mix
from adapters.policy import Policy
from gateway import plan
from gateway.turn import Options
from routing.domains import load_domains
from routing.router import ActiveDomain, RouteDecision

TABLE = load_domains()
LOADED = frozenset({"shell", "sql", "python", "spice"})


def route(*active: tuple[str, float], clear: bool = False) -> RouteDecision:
    total = sum(score for _, score in active)
    domains = tuple(
        ActiveDomain(name, score, score / total, TABLE.members(name)[0]) for name, score in active
    )
    return RouteDecision(
        scores=(),
        active=domains,
        threshold=0.3,
        top_k=4,
        in_domain=1.0,
        confidence=max((score for _, score in active), default=0.0),
        clear=clear,
    )


def choose(options: Options, decision: RouteDecision | None):
    return plan.choose(options, decision, LOADED, TABLE)


def choose_on_the_reference_base(options: Options, decision: RouteDecision | None):
    verdicts = Policy.load().verdicts("mlx-community/Qwen3.6-35B-A3B-4bit")
    return plan.choose(options, decision, LOADED, TABLE, verdicts)


def test_nothing_in_domain_runs_on_the_base():
    mount = choose(Options(), route())
    assert (mount.plan, mount.mix) == ("single", BASE)


def test_one_domain_is_its_adapter_at_full_weight():
    mount = choose(Options(), route(("shell", 0.9)))
    assert (mount.plan, mount.mix) == ("single", Mix.single("shell"))


def test_a_domain_well_ahead_answers_alone():
    mount = choose(Options(), route(("shell", 0.95), ("sql", 0.3), clear=True))
    assert mount.mix == Mix.single("shell")


def test_several_domains_blend_with_weights_that_add_up_to_one():
    mount = choose(Options(), route(("shell", 0.6), ("sql", 0.6)))
    assert mount.plan == "blend"
    assert dict(mount.mix.weights) == pytest.approx({"shell": 0.5, "sql": 0.5})


def test_weights_come_in_twentieths_so_that_like_questions_share_a_mix():
    one = choose(Options(), route(("shell", 0.61), ("sql", 0.57)))
    other = choose(Options(), route(("shell", 0.60), ("sql", 0.58)))
    assert one.mix == other.mix == Mix.of({"shell": 0.5, "sql": 0.5})
    faint = choose(Options(), route(("shell", 0.97), ("sql", 0.02)))
    assert faint.mix == Mix.of({"shell": 1.0, "sql": 0.05})


def test_a_domain_without_an_adapter_leaves_its_share_to_the_base():
    mount = choose(Options(), route(("rust", 0.6), ("sql", 0.6)))
    assert dict(mount.mix.weights) == pytest.approx({"sql": 0.5})
    assert mount.base_only == ("rust",)


def test_a_merged_output_is_served_by_a_members_adapter():
    assert choose(Options(), route(("spice", 0.9))).mix == Mix.single("spice")


def test_the_callers_plan_wins_over_the_routers():
    both = route(("shell", 0.6), ("sql", 0.5))
    assert choose(Options(plan="single"), both).mix == Mix.single("shell")
    assert choose(Options(plan="panel"), both).plan == "panel"


def test_the_callers_mix_is_taken_as_it_is():
    mix = Mix.of({"shell": 0.7, "sql": 0.3})
    assert choose(Options(adapters=mix), None).mix == mix
    assert choose(Options(adapters=mix, plan="single"), None).mix == Mix.of({"shell": 0.7})
    assert choose(Options(adapters=BASE), None).mix == BASE


def test_a_named_domain_without_an_adapter_says_so():
    mount = choose(Options(adapters=BASE, adapter_missing="rust"), None)
    assert (mount.mix, mount.base_only) == (BASE, ("rust",))


def test_a_leading_domain_without_an_adapter_runs_on_the_base_and_not_on_the_next_one():
    ahead = route(("rust", 0.95), ("sql", 0.3), clear=True)
    for options in (Options(), Options(plan="single")):
        mount = choose(options, ahead)
        assert (mount.mix, mount.base_only) == (BASE, ("rust",))


def test_a_panel_of_fewer_than_two_adapters_is_none():
    assert choose(Options(plan="panel"), route(("rust", 0.6), ("sql", 0.5))).plan == "blend"
    assert choose(Options(plan="panel"), route()).plan == "single"
    assert choose(Options(plan="panel", adapters=Mix.single("shell")), None).plan == "single"


def test_a_domain_whose_adapter_measured_worse_runs_on_the_base_and_the_reason_says_so():
    mount = choose_on_the_reference_base(Options(), route(("python", 0.9)))
    assert (mount.plan, mount.mix, mount.base_only) == ("single", BASE, ("python",))
    assert "python: base 73.0 > adapter 66.0 on MBPP" in mount.reason
    assert choose(Options(), route(("python", 0.9))).mix == Mix.single("python")


def test_its_share_of_a_blend_is_the_bases_and_the_others_keep_theirs():
    mount = choose_on_the_reference_base(Options(), route(("shell", 0.6), ("python", 0.6)))
    assert mount.plan == "blend"
    assert dict(mount.mix.weights) == pytest.approx({"shell": 0.5})
    assert mount.base_only == ("python",)
    assert "2 domains are active" in mount.reason
    assert "base 73.0 > adapter 66.0 on MBPP" in mount.reason


def test_a_leader_that_measured_worse_is_not_replaced_by_the_next_domain():
    ahead = route(("python", 0.95), ("sql", 0.3), clear=True)
    mount = choose_on_the_reference_base(Options(), ahead)
    assert (mount.mix, mount.base_only) == (BASE, ("python",))
    assert mount.reason.startswith("python leads, base 73.0 > adapter 66.0 on MBPP")


def test_missing_and_worse_adapters_are_told_apart():
    mount = choose_on_the_reference_base(Options(), route(("rust", 0.6), ("python", 0.6)))
    assert (mount.mix, mount.base_only) == (BASE, ("rust", "python"))
    assert "no adapter is loaded for rust; python: base 73.0" in mount.reason


def test_an_adapter_that_the_caller_names_is_served_whatever_was_measured():
    mix = Mix.of({"python": 0.7, "shell": 0.3})
    for asked in (mix, Mix.single("python")):
        mount = choose_on_the_reference_base(Options(adapters=asked), route(("python", 0.9)))
        assert (mount.mix, mount.base_only) == (asked, ())


def test_a_panel_counts_only_the_adapters_that_may_be_used():
    decision = route(("python", 0.6), ("sql", 0.6))
    assert choose_on_the_reference_base(Options(plan="panel"), decision).plan == "blend"
