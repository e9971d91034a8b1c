from __future__ import annotations

import subprocess
import sys

import pytest

from adapters.engines.vllm.workdir import WorkDir
from kiki.errors import SettingsError

HOLD = """
import sys
from pathlib import Path
from adapters.engines.vllm.workdir import WorkDir
work = WorkDir(Path(sys.argv[1]))
(work.path / "mix").write_text("8 GB")
print(work.path.name, flush=True)
sys.stdin.read()
"""


def test_only_its_user_can_look_into_it(tmp_path):
    work = WorkDir(tmp_path / "kiki")
    assert (tmp_path / "kiki").stat().st_mode & 0o777 == 0o700
    work.close()
    assert not work.path.exists()


def test_what_a_dead_process_left_is_removed_and_a_live_ones_stays(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        while_it_lives = WorkDir(tmp_path)
        assert (tmp_path / name / "mix").is_file()
        process.kill()
    after = WorkDir(tmp_path)
    assert not (tmp_path / name).exists()
    assert while_it_lives.path.is_dir()
    while_it_lives.close()
    after.close()


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kiki").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="is a link or belongs to another user"):
        WorkDir(tmp_path / "kiki")


def test_a_place_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file/kiki can't be used"):
        WorkDir(tmp_path / "file" / "kiki")
