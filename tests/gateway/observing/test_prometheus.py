"""What is wrong with the rules, or missing, is one line with the file and the fix."""

from __future__ import annotations

import shutil

import pytest

from gateway.observing.files import RULES
from gateway.observing.prometheus import checked, running_prometheus
from kiki.errors import KikiError

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="as root: scripts/debian-tools prometheus"
)


@needs_promtool
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("expr: kiki_engine_ready == 0", "expr: kiki_engine_ready =="),
        ("for: 1m", "for: soon"),
        ("alert: KikiDown", "alarm: KikiDown"),
    ],
)
def test_wrong_rules_are_one_line_with_file_and_fix(tmp_path, wrong, said):
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES.read_text().replace(wrong, said, 1))
    with pytest.raises(KikiError) as caught:
        checked("promtool", rules)
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"{rules}: ")
    assert "promtool check rules" in told
    assert any(word in told for word in ("KikiEngineDown", "soon", "alarm")), told


def test_without_prometheus_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    starting = running_prometheus("http://127.0.0.1:1", RULES, tmp_path)
    with pytest.raises(KikiError, match=r"prometheus isn't installed.*scripts/debian-tools"):
        starting.__enter__()
