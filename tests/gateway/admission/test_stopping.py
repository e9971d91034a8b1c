"""``kiki serve`` told to stop, as a process, and what it logs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

STORY = {
    "model": "base",
    "messages": [{"role": "user", "content": "Write a very long story about a plumbus."}],
    "stream": True,
}
SECRET_WORD = "plumbus"


@dataclass
class Gateway:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def lines(self) -> list[dict[str, object]]:
        """The log; an empty line is what a progress bar leaves."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line]


@contextmanager
def gateway(folder: Path, **settings: str) -> Iterator[Gateway]:
    """One that logs JSON into a file."""
    settings = {"data_dir": str(folder), "port": "0", "log_format": "json"} | settings
    log = folder / "log"
    folder.mkdir(exist_ok=True)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            env=os.environ | {f"KIKI_{name.upper()}": text for name, text in settings.items()},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+?(?=/v1)", line):
                break
        else:
            raise AssertionError(log.read_text())
        yield Gateway(process, found.group(), log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def kiki(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=os.environ | {"KIKI_DATA_DIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_sigterm_lets_a_stream_finish_and_sends_new_requests_away(tmp_path):
    with gateway(tmp_path) as running, running.client() as http:
        events = []
        body = STORY | {"max_tokens": 150}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            events.append(next(lines))
            running.process.send_signal(signal.SIGTERM)
            with running.client() as other:
                # It takes a moment until the signal is heard.
                while other.get("/health/ready").status_code == 200:
                    pass
                assert other.get("/health/live").status_code == 200
                refused = other.post("/v1/chat/completions", json=STORY)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            assert int(refused.headers["retry-after"]) >= 1
            events += [line for line in lines if line]
        assert events[-1] == "data: [DONE]"
        assert running.process.wait(30) == 0
    # The journal has the episode; nothing but a process that is gone held the folder.
    assert SECRET_WORD in kiki(tmp_path, "memory", "list", "--json")


def test_a_stream_that_takes_too_long_is_cut_off_and_the_exit_is_clean(tmp_path):
    with gateway(tmp_path, drain_s="0") as running, running.client() as http:
        with http.stream("POST", "/v1/chat/completions", json=STORY | {"max_tokens": 1500}) as told:
            lines = told.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            assert "data: [DONE]" not in rest_of(lines)
        assert running.process.wait(30) == 0


def test_a_second_signal_ends_at_once(tmp_path):
    with gateway(tmp_path, drain_s="600") as running, running.client() as http:
        with http.stream("POST", "/v1/chat/completions", json=STORY | {"max_tokens": 1500}) as told:
            lines = told.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            with running.client() as other:
                while other.get("/health/ready").status_code == 200:
                    pass
            running.process.send_signal(signal.SIGTERM)
            assert "data: [DONE]" not in rest_of(lines)
        assert running.process.wait(30) == 0


def rest_of(lines: Iterator[str]) -> list[str]:
    seen: list[str] = []
    with suppress(httpx.TransportError):
        seen.extend(lines)
    return seen


def test_the_log_has_a_line_a_request_with_its_id_and_neither_key_nor_prompt(tmp_path):
    key = kiki(tmp_path, "keys", "create", "anna").splitlines()[0]
    wrong = "kiki_anna_" + 64 * "0"
    with gateway(tmp_path, log_level="debug") as running:
        with running.client(key) as http:
            answer = http.post(
                "/v1/chat/completions", json=STORY | {"max_tokens": 3, "stream": False}
            )
            http.get("/v1/memory/search", params={"q": SECRET_WORD, "key": key})
            http.get("/v1/memory/no-such-one%0A{}", headers={"x-api-key": key})
            http.post("/v1/chat/completions", content=b"{" + SECRET_WORD.encode())
        with running.client(wrong) as http:
            assert http.get("/v1/models").status_code == 401
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        written, lines = running.log.read_text(), running.lines()
    for secret in (key, key[-64:], wrong, wrong[-64:], SECRET_WORD):
        assert secret not in written
    (line,) = [one for one in lines if one.get("request_id") == answer.headers["x-request-id"]]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert line["tenant"] == "anna"
    assert line["tokens"] == answer.json()["usage"]["total_tokens"]
    assert {one["status"] for one in lines if one["logger"] == "kiki.requests"} >= {200, 401, 404}


def test_prompts_are_logged_where_they_are_asked_for(tmp_path):
    with gateway(tmp_path, log_prompts="true") as running:
        with running.client() as http:
            http.post("/v1/chat/completions", json=STORY | {"max_tokens": 3, "stream": False})
        prompts = [one for one in running.lines() if one["logger"] == "kiki.prompts"]
    assert SECRET_WORD in str(prompts[0]["message"])
    assert prompts[0]["request_id"] != "-"
