"""``kiki serve`` as a process: what survives a kill, and what it says."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from memory.atlas_edge import EdgeAtlas
from memory.trace_sqlite import SqliteTrace
from tests.memory.test_memory_faults import ROUNDS


@dataclass
class Gateway:
    process: subprocess.Popen[str]
    client: httpx.Client

    def say(self, text: str, **fields) -> httpx.Response:
        body = {
            "model": "base",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 2,
            "user": "kim",
        }
        return self.client.post("/v1/chat/completions", json=body | fields)

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return next(
            int(pid)
            for pid in children.read_text().split()
            if "llamacpp.server" in Path(f"/proc/{pid}/cmdline").read_text()
        )


@contextmanager
def gateway(folder: Path, **settings: str) -> Iterator[Gateway]:
    given = {"data_dir": str(folder), "port": "0", **settings}
    environment = os.environ | {f"KIKI_{name.upper()}": value for name, value in given.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+?(?=/v1)", line):
                with httpx.Client(base_url=found.group(), timeout=120, trust_env=False) as client:
                    yield Gateway(process, client)
                break
        else:
            raise AssertionError(f"the gateway ended with code {process.wait(10)}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def turns_of(folder: Path) -> dict[str, list[int]]:
    """The turns of each conversation, in writing order."""
    turns: dict[str, list[int]] = {}
    with sqlite3.connect(folder / "memory" / "journal.sqlite") as journal:
        for name, turn in journal.execute("SELECT conversation, turn FROM episode ORDER BY seq"):
            turns.setdefault(name, []).append(turn)
    return turns


def journalled(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "memory" / "journal.sqlite") as journal:
        return [row[0] for row in journal.execute("SELECT id FROM episode ORDER BY seq")]


def keep(client: httpx.Client, id_: str) -> bool:
    body = {"id": id_, "text": f"Note {id_}.", "user": "kim", "conversation": "notes"}
    (kept,) = client.post("/v1/memory", json=body).raise_for_status().json()["data"]
    return bool(kept["new"])


def test_a_killed_gateway_keeps_every_episode_whose_answer_was_sent(tmp_path):
    acknowledged: set[str] = set()
    unsure: list[str] = []
    for round_number in range(ROUNDS):
        with gateway(tmp_path) as running:
            # A client that got no answer sends again; the id says that it is the same.
            for id_ in unsure:
                keep(running.client, id_)
            acknowledged.update(unsure)
            unsure = []
            acknowledged.add(running.say(f"Round {round_number}.").json()["id"])
            killer = threading.Timer(random.uniform(0, 0.5), running.process.kill)
            killer.start()
            with contextlib.suppress(httpx.TransportError):
                for number in itertools.count():
                    unsure = [f"r{round_number}.{number}"]
                    assert keep(running.client, unsure[0])
                    acknowledged.update(unsure)
                    if number % 8 == 0:
                        acknowledged.add(running.say(f"More of {number}.").json()["id"])
            killer.join()
    with gateway(tmp_path) as running:
        for id_ in unsure:
            keep(running.client, id_)
        deadline = time.monotonic() + 60
        while running.client.get("/health").json()["memory"]["lag"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    kept = journalled(tmp_path)
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    for conversation, turns in turns_of(tmp_path).items():
        assert len(turns) == len(set(turns)), conversation
    memory = tmp_path / "memory"
    trace = SqliteTrace(memory / "trace")
    assert trace.count() == len(kept)
    trace.close()
    made_with = json.loads((memory / "atlas" / "atlas.json").read_text())["embedding"]
    atlas = EdgeAtlas(memory / "atlas", embedding_id=made_with, dimension=768)
    assert atlas.count() == len(kept)
    atlas.close()


def test_the_memory_commands_ask_a_running_gateway(tmp_path):
    with gateway(tmp_path) as running:
        assert keep(running.client, "one")
        command = [sys.executable, "-m", "gateway", "memory", "list", "--user", "kim", "--json"]
        environment = os.environ | {"KIKI_DATA_DIR": str(tmp_path), "KIKI_PORT": "9"}
        listed = subprocess.run(
            [*command, "--url", str(running.client.base_url)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert [one["id"] for one in json.loads(listed.stdout)["data"]] == ["one"]
        lost = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert lost.returncode == 1
        assert f"Process {running.process.pid} has the memory open" in lost.stderr


def test_the_engine_does_not_outlive_a_killed_gateway(tmp_path):
    with gateway(tmp_path) as running:
        engine = running.engine_pid()
        running.process.kill()
        running.process.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{engine}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{engine}").exists()


def test_a_dead_engine_gives_503_with_retry_after_and_then_comes_back(tmp_path):
    with gateway(tmp_path) as running:
        os.kill(running.engine_pid(), signal.SIGKILL)
        refused = running.say("Are you there?")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert running.client.get("/health").status_code == 503
        deadline = time.monotonic() + 60
        while running.say("And now?").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert running.client.get("/health").json()["status"] == "ok"


def test_a_stream_whose_engine_dies_ends_with_an_error_event_and_no_done(tmp_path):
    with gateway(tmp_path) as running:
        body = {
            "model": "base",
            "messages": [{"role": "user", "content": "Write a very long story."}],
            "max_tokens": 1500,
            "stream": True,
        }
        engine = running.engine_pid()
        events = []
        with running.client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if line:
                    events.append(line)
                    if len(events) == 3:
                        os.kill(engine, signal.SIGKILL)
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == (
            "engine_unavailable"
        )
        assert "data: [DONE]" not in events
        counted = 'kiki_broken_streams_total{reason="engine_unavailable"} 1.0'
        assert counted in running.client.get("/metrics").text


def test_sigterm_ends_the_gateway_with_code_0(tmp_path):
    with gateway(tmp_path) as running:
        running.say("One thing to keep.")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    assert len(journalled(tmp_path)) == 1


def test_a_second_gateway_on_the_same_folder_is_told_who_owns_it(tmp_path):
    with gateway(tmp_path) as running:
        second = subprocess.run(
            [sys.executable, "-m", "gateway", "serve"],
            env=os.environ | {"KIKI_DATA_DIR": str(tmp_path), "KIKI_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert second.returncode == 1
        assert f"in use by process {running.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert running.say("Still here?").status_code == 200


def test_a_streamed_episode_is_journalled_before_the_terminal_chunk(tmp_path):
    with gateway(tmp_path) as running:
        body = {
            "model": "base",
            "messages": [{"role": "user", "content": "Tell me something."}],
            "max_tokens": 4,
            "stream": True,
        }
        with running.client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if '"finish_reason": "' in line:
                    running.process.kill()
                    break
            else:
                pytest.fail("no terminal chunk came")
    assert len(journalled(tmp_path)) == 1
