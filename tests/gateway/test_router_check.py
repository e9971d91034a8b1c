from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.router_check import mirrors
from routing.domains import DomainTable, load_domains

TABLE = load_domains()


def changed(at: str, **changes: Any) -> DomainTable:
    domains = (replace(d, **changes) if d.name == at else d for d in TABLE.domains)
    return DomainTable(tuple(domains), TABLE.intents)


def test_recipes_adapters_and_names_agree_with_the_table():
    assert [str(found) for found in mirrors(TABLE)] == []


def test_a_mirror_that_does_not_agree_is_named():
    assert "adapter" in {f.rule for f in mirrors(changed("rust", adapters=("oxide",)))}
    lost = {f.message for f in mirrors(changed("shell", adapters=("python",)))}
    assert any("'shell' is shipped, and no domain uses it" in message for message in lost)
    assert any(f.rule.startswith("recipe") for f in mirrors(changed("rust", family="niches")))
    assert "alias" in {f.rule for f in mirrors(changed("rust", name="base"))}
