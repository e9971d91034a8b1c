"""``kiki chat``: ask a running gateway."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from gateway.settings import load_settings
from kiki.errors import EngineUnavailableError, KikiError


@click.command("chat")
@click.argument("question", required=False)
@click.option("--model", default="micro-kiki", show_default=True, help="Model or adapter name.")
@click.option("--url", help="Address of the gateway; the default is the one in the settings.")
@click.option("--user", help="Whose memory to use.")
@click.option("--conversation", help="Name of the conversation to go on with.")
@click.option("--plan", type=click.Choice(["auto", "single", "blend", "panel"]), default="auto")
@click.option("--max-tokens", type=click.IntRange(1))
@click.option("--no-memory", is_flag=True, help="Neither recall nor remember.")
@click.option("--explain", is_flag=True, help="Show the seven stages afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
def command(
    question: str | None,
    model: str,
    url: str | None,
    user: str | None,
    conversation: str | None,
    plan: str,
    max_tokens: int | None,
    no_memory: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Ask QUESTION of a running gateway; without one, talk until end of input."""
    settings = load_settings()
    address = (url or f"http://{settings.host}:{settings.port}").rstrip("/").removesuffix("/v1")
    kiki: dict[str, Any] = {"plan": plan, "explain": explain or as_json, "memory": not no_memory}
    if conversation:
        kiki["conversation"] = conversation
    body: dict[str, Any] = {"model": model, "kiki": kiki}
    body |= {"user": user} if user else {}
    body |= {"max_tokens": max_tokens} if max_tokens else {}
    if question is not None:
        said = [{"role": "user", "content": question}]
        _ask(address, settings.key_headers, body, said, explain, as_json)
        return
    _talk(address, settings.key_headers, body, explain, as_json)


def _talk(
    address: str, headers: dict[str, str], body: dict[str, Any], explain: bool, as_json: bool
) -> None:
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = click.prompt("you", prompt_suffix="> ", err=True)
        except click.Abort:
            click.echo(err=True)
            return
        messages.append({"role": "user", "content": question})
        answer = _ask(address, headers, body, messages, explain, as_json)
        messages.append({"role": "assistant", "content": answer})


def _ask(
    address: str,
    headers: dict[str, str],
    body: dict[str, Any],
    messages: list[dict[str, str]],
    explain: bool,
    as_json: bool,
) -> str:
    import httpx

    body = body | {"messages": messages, "stream": not as_json}
    try:
        with httpx.stream(
            "POST",
            f"{address}/v1/chat/completions",
            headers=headers,
            json=body,
            timeout=600,
            trust_env=False,
        ) as response:
            if response.status_code != 200:
                raise _refusal(response.read())
            if as_json:
                reply = json.loads(response.read())
                click.echo(json.dumps(reply, ensure_ascii=False, indent=2))
                return str(reply["choices"][0]["message"]["content"])
            return _print_stream(response.iter_lines(), explain)
    except httpx.TransportError as error:
        raise EngineUnavailableError(
            f"No gateway answers on {address} ({error}).", fix="Start one with: kiki serve"
        ) from error


def _print_stream(lines: Any, explain: bool) -> str:
    answer = ""
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise KikiError(str(chunk["error"]["message"]))
        piece = chunk["choices"][0]["delta"].get("content") or ""
        answer += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
        if explain and "kiki" in chunk:
            click.echo()
            _print_stages(chunk["kiki"])
    click.echo()
    return answer


def _print_stages(kiki: dict[str, Any]) -> None:
    mix = ", ".join(f"{name} {weight:.2f}" for name, weight in kiki["adapters"].items())
    click.echo(f"\nplan {kiki['plan']}, adapters {mix or 'none (base)'}, memory {kiki['memory']}")
    for stage in kiki["stages"]:
        decision = json.dumps(stage["decision"], ensure_ascii=False)
        click.echo(f"  {stage['name']:<10} {stage['ms']:>9.2f} ms  {decision[:140]}")


def _refusal(body: bytes) -> KikiError:
    try:
        return KikiError(str(json.loads(body)["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return KikiError(f"The gateway answered: {body[:200].decode(errors='replace')}")
