from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tomllib

import pytest

from gateway.cli.serve import listen
from gateway.settings import load_settings


def kiki(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from gateway.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'fastapi', 'pydantic', 'numpy', 'httpx', 'rich', 'onnxruntime', 'torch'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ("serve", "chat", "route", "adapters", "models", "config", "doctor", "bench"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize(
    "name",
    [
        "serve",
        "chat",
        "route",
        "adapters",
        "models",
        "router",
        "antibias",
        "memory",
        "keys",
        "config",
        "doctor",
        "bench",
        "completion",
    ],
)
def test_every_command_has_help(name):
    result = kiki(name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage:")


def test_config_prints_a_kiki_toml_that_can_be_read_back(tmp_path):
    printed = kiki("config", KIKI_RECALL_LIMIT="7").stdout
    assert tomllib.loads(printed)["recall_limit"] == 7
    assert "[from KIKI_RECALL_LIMIT]" in printed
    file = tmp_path / "kiki.toml"
    file.write_text(printed)
    again = json.loads(kiki("config", "--json", KIKI_CONFIG=str(file)).stdout)
    assert again == json.loads(kiki("config", "--json", KIKI_RECALL_LIMIT="7").stdout)


def test_a_wrong_setting_ends_the_start_with_one_line():
    result = kiki("serve", KIKI_PORT="abc")
    assert result.returncode == 78
    assert result.stderr.startswith("kiki: KIKI_PORT = 'abc'")
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said_before_anything_is_loaded():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = kiki("serve", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 78
    assert "Can't listen on" in result.stderr
    assert "--port" in result.stderr


def test_chat_without_a_gateway_says_how_to_start_one():
    result = kiki("chat", "hello", "--url", "http://127.0.0.1:9")
    assert result.returncode == 1
    assert "No gateway answers" in result.stderr
    assert "kiki serve" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell):
    assert "_KIKI_COMPLETE" in kiki("completion", shell).stdout


def test_doctor_finds_a_missing_model_and_says_what_to_do(tmp_path):
    result = kiki("doctor", KIKI_MODELS_DIR=str(tmp_path))
    assert result.returncode == 1
    assert "WRONG" in result.stdout
    assert "kiki models pull" in result.stdout


def test_route_prints_json_without_a_server():
    result = kiki("route", "--json", "list all files over 100 MB in /var", "hello there")
    assert result.returncode == 0, result.stderr
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["domains"][0]["name"] == "shell"
    assert second["fallback"] is True


def test_route_reads_files_and_names_the_line_that_is_no_prompt(tmp_path):
    asked = [{"type": "text", "text": "SQL: join two tables"}]
    conversation = json.dumps({"messages": [{"role": "user", "content": asked}]})
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"\ufeff{conversation}\nhello there\n", encoding="utf-8")
    result = kiki("route", "--file", str(path), "--json")
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["SQL: join two tables", "hello there"]
    for prompt in (None, " "):
        path.write_text("hello there\n" + json.dumps({"prompt": prompt}), encoding="utf-8")
        refused = kiki("route", "--file", str(path))
        assert refused.returncode == 1
        assert f"{path}, line 2 is no prompt" in " ".join(refused.stderr.split())


def test_router_eval_takes_no_file_beside_clinc(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.touch()
    result = kiki("router", "eval", "--file", str(path), "--clinc", str(path))
    assert result.returncode == 2
    assert "leave out --file" in result.stderr


def test_bench_router_takes_no_more_prompts_than_it_has():
    result = kiki("bench", "router", "--prompts", "2000")
    assert result.returncode == 2
    assert "5<=x<=1000" in result.stderr


async def test_connections_are_made_without_nagle_which_holds_short_answers_back(tmp_path):
    """Only a listener that names its protocol makes asyncio switch it off."""
    switched_off: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        switched_off.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen(load_settings(port=0, data_dir=tmp_path))
    async with await asyncio.start_server(accept, sock=listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert switched_off == [1]
