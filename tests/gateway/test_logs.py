"""Where the log goes; each in a process of its own, since logging is set up once a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITE = """
import logging, sys
from pathlib import Path
from gateway import logs
logs._FILE_BYTES, logs._FILES_KEPT = 2000, 2
logs.configure_logging("info", "json", Path(sys.argv[1]))
for number in range(100):
    logging.getLogger("kiki.test").info("line %d", number)
"""


def write(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WRITE, str(file)], check=False, capture_output=True, text=True
    )


def test_a_log_file_is_turned_over_and_old_ones_are_dropped(tmp_path):
    file = tmp_path / "log" / "gateway.log"
    assert write(file).returncode == 0
    names = {path.name for path in file.parent.iterdir()}
    assert names == {"gateway.log", "gateway.log.1", "gateway.log.2"}
    assert "line 99" in file.read_text()


def test_a_log_file_that_can_not_be_written_is_named_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    refused = write(tmp_path / "file" / "gateway.log")
    assert "can't be written" in refused.stderr
    assert "leave it out to log to stderr" in refused.stderr


def test_a_line_break_in_a_message_begins_no_line_of_its_own():
    script = (
        "import logging; from gateway.logs import configure_logging; configure_logging('info');"
        "logging.getLogger('kiki.test').error('%s failed', '/v1/x\\n2026 ERROR kiki: forged')"
    )
    written = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stderr
    assert len(written.splitlines()) == 1
    assert "forged" in written
