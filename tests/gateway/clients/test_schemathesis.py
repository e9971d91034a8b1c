"""Requests made of the API's own description: no 500, no hang, answers as it documents them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# The night takes minutes, and would be one for each example.
EXCLUDED = "/v1/admin"


def test_every_documented_request_is_answered_as_documented(base_url, tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    server = base_url.removesuffix("/v1")
    command = [program, "run", f"{server}/openapi.json", "--url", server, "--no-color"]
    command += ["--phases", "examples,fuzzing", "--max-examples", "4", "--seed", "1"]
    command += ["--checks", ",".join(CHECKS), "--request-timeout", "60"]
    command += ["--exclude-path-regex", EXCLUDED]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-8000:]
    assert "passed" in found.stdout
