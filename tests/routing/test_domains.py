from __future__ import annotations

from pathlib import Path

import pytest

from kiki.errors import RoutingError
from routing.domains import PACKAGED, load_domains

NAMES = """chat-fr components cpp devops docker dsp electronics embedded emc freecad html-css iot
kicad-dsl kicad-pcb llm-ops llm-orch lua-upy math ml-training music-audio platformio power python
reasoning rust security shell spice spice-sim sql stm32 typescript web-backend web-frontend
yaml-json"""
COGNITIVE = """chat-fr reasoning power python dsp math security devops llm-ops llm-orch ml-training
music-audio web-backend web-frontend"""


def changed(folder: Path, old: str, new: str) -> Path:
    text = PACKAGED.read_text(encoding="utf-8")
    assert old in text
    path = folder / "domains.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_table_has_the_35_domains_and_31_outputs() -> None:
    table = load_domains()
    assert sorted(domain.name for domain in table.domains) == NAMES.split()
    assert len(table.outputs) == 31
    merged = {output: set(table.members(output)) for output in table.outputs}
    assert {output: members for output, members in merged.items() if len(members) > 1} == {
        "electronics-hw": {"components", "electronics", "power"},
        "kicad": {"kicad-dsl", "kicad-pcb"},
        "spice": {"spice", "spice-sim"},
    }


def test_every_intent_limits_the_route_to_some_outputs() -> None:
    table = load_domains()
    assert len(table.intents) == 7
    for intent in table.intents:
        assert table.intent_outputs(intent) < set(table.outputs)
    served = frozenset[str]().union(*(table.intent_outputs(intent) for intent in table.intents))
    assert served == set(table.outputs)


def test_the_cognitive_layer_is_on_for_the_domains_that_it_helps() -> None:
    on = {
        domain.name
        for domain in load_domains().domains
        if domain.cognitive.memory and domain.cognitive.negotiation and domain.cognitive.antibias
    }
    assert on == set(COGNITIVE.split())


def test_a_domain_is_served_by_the_adapter_of_its_name_first() -> None:
    for domain in load_domains().domains:
        assert domain.adapters[0] == domain.name


def test_no_panel_has_been_measured_to_help() -> None:
    table = load_domains()
    assert not any(table.helps_panel(output) for output in table.outputs)


def test_unknown_names_are_refused_with_the_near_ones() -> None:
    table = load_domains()
    with pytest.raises(RoutingError, match=r"'pyton'.*python"):
        table.domain("pyton")
    with pytest.raises(RoutingError, match=r"'kicat'.*kicad"):
        table.members("kicat")
    with pytest.raises(RoutingError, match=r"'code'.*coding"):
        table.intent_outputs("code")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "rust"', 'name = "cpp"', "'cpp' twice"),
        (
            'output = "rust"',
            'output = "cpp"\ncolour = "red"',
            "'rust' has the unknown key 'colour'",
        ),
        ('family = "coding"\noutput = "rust"', 'output = "rust"', "'rust' lacks 'family'"),
        ('output = "rust"', 'output = ""', "'rust' has an empty 'output'"),
        ('family = "coding"', 'family = "code"', "'cpp' has the unknown family 'code'"),
        ('intents = ["coding"]', 'intents = ["codin"]', "'cpp' has the unknown intent 'codin'"),
        ('adapters = ["rust"]', "adapters = []", "'rust' has no list of names 'adapters'"),
        ("panel = false", 'panel = "no"', "'chat-fr' has panel = 'no'"),
        ("memory = true, ", "", "'chat-fr' has a wrong 'cognitive'"),
        ('deep_judge = ["math"', 'deep_judge = ["maths"', "deep_judge has 'maths'"),
        (
            "negotiation = true, antibias = true }\npanel = false",
            "negotiation = false, antibias = true }\npanel = true",
            "'chat-fr' has a panel and no negotiation",
        ),
        ('"creative", ', "", "unknown intent 'creative'"),
        ('"creative", ', '"creative", "idle", ', "8 intents"),
        ("[[domain]]", "[[domain]", "can't be read"),
    ],
)
def test_a_wrong_table_is_refused_by_file_and_domain(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(RoutingError) as refused:
        load_domains(path)
    assert str(path) in refused.value.message
    assert message in refused.value.message
    assert refused.value.fix


def test_an_output_cannot_take_the_name_of_a_domain_that_goes_elsewhere(tmp_path: Path) -> None:
    path = changed(tmp_path, 'output = "rust"', 'output = "cpp"')
    text = path.read_text(encoding="utf-8").replace('output = "kicad"', 'output = "rust"')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RoutingError, match="'kicad-dsl' has the output 'rust'"):
        load_domains(path)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoutingError, match="can't be read"):
        load_domains(tmp_path / "domains.toml")
