"""``kiki route``: what a prompt is about, without inference and without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.settings import load_settings
from kiki.errors import RequestError

if TYPE_CHECKING:
    from routing.conversation import Routed, Said

CHUNK = 64


@click.command("route")
@click.argument("queries", nargs=-1)
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    multiple=True,
    help="Prompts, one a line, or JSON lines with prompt, query or messages; - is stdin.",
)
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True))
@click.option("--top-k", type=click.IntRange(1, 4), default=4, show_default=True)
@click.option("--explain", is_flag=True, help="All scores, the nearest training prompts, why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a query.")
def command(
    queries: tuple[str, ...],
    files: tuple[Path, ...],
    threshold: float | None,
    top_k: int,
    explain: bool,
    as_json: bool,
) -> None:
    """Show the domains that QUERIES would activate, with their scores; no inference."""
    asked: list[tuple[str, tuple[Said, ...]]] = [(query, ()) for query in queries]
    for file in files:
        asked += _read(file)
    if not asked:
        raise click.UsageError("Give a query, or --file.")
    if not all(query.strip() for query, _ in asked):
        raise RequestError("A query is empty.", fix="Give some text.")
    settings = load_settings()

    from gateway.advising import build_advisor
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting, pulling
    from gateway.explaining import explanation
    from routing.conversation import Conversations, Limits
    from routing.domains import load_domains
    from routing.neighbours import Neighbours
    from routing.router import PACKAGED, Router

    with pulling() as pulled:
        embedder = load_embedder(settings, pulled)
    table = load_domains()
    router = Router.load(table=table, embedding_id=embedder.id, threshold=settings.router_threshold)
    advisor = build_advisor(settings, table, embedder.token_ids)
    conversations = Conversations(router, embedder, advisor)
    neighbours = Neighbours.read(PACKAGED, embedding_id=embedder.id) if explain else None
    limits = Limits(threshold, top_k)
    with counting() as progress:
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]
            embedder.embed([query for query, _ in part])  # in batches, for the embedder's cache
            for query, before in part:
                routed = conversations.route(query, before, limits)
                why = explanation(routed, router, neighbours) if neighbours else None
                if as_json:
                    click.echo(json.dumps(_answer(query, routed, why), ensure_ascii=False))
                else:
                    click.echo("\n".join(_lines(query if len(asked) > 1 else "", routed, why)))
            if len(asked) > CHUNK:
                progress("prompts routed", start + len(part), len(asked))


def _read(path: Path) -> Iterator[tuple[str, tuple[Said, ...]]]:
    """The file's prompts, each with what was said before it."""
    from routing.conversation import asked_last

    with click.open_file(str(path), encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if not line.lstrip().startswith("{"):
                yield line.rstrip("\n"), ()
                continue
            try:
                row = json.loads(line)
                if "messages" in row:
                    query, before = asked_last(row["messages"])
                else:
                    query, before = row["prompt"] if "prompt" in row else row["query"], ()
                if not isinstance(query, str) or not query.strip():
                    raise ValueError("it is empty or no text")
            except (ValueError, KeyError, TypeError) as error:
                raise RequestError(
                    f"{path}, line {number} is no prompt: {error!r}.",
                    fix='Write {"prompt": "..."} or {"messages": [...]}, or plain text.',
                ) from error
            yield query, before


def _answer(query: str, routed: Routed, why: dict[str, Any] | None) -> dict[str, Any]:
    """As `POST /v1/route` answers."""
    decision = routed.decision
    domains = [{"name": d.name, "score": round(d.score, 4)} for d in decision.active]
    answer = {"query": query, "domains": domains, "fallback": decision.fallback}
    return answer | ({"explain": why} if why else {})


def _lines(query: str, routed: Routed, why: dict[str, Any] | None) -> Iterator[str]:
    decision = routed.decision
    if query:
        yield query
    for domain in decision.active:
        yield f"  {domain.name:<14} {domain.score:.3f}  {'█' * round(domain.score * 30)}"
    if decision.fallback:
        best = decision.scores[0]
        yield (
            f"  no domain is active (best: {best.name} {best.score:.3f}, "
            f"threshold {decision.threshold:.3f}): the base would answer"
        )
    if why:
        yield from _why(why)


def _why(why: dict[str, Any]) -> Iterator[str]:
    yield f"  threshold {why['threshold']:.3f}; {why['conversation']['effect']}"
    said = "under" if why["in_domain"] < why["scope_threshold"] else "over"
    yield f"  in domain {why['in_domain']:.3f}, {said} the limit of {why['scope_threshold']:.3f}"
    if why["advised"]:
        yield "  the advisor's logits are blended in"
    scores = [f"{score['name']} {score['score']:.3f}" for score in why["scores"]]
    for start in range(0, len(scores), 5):
        yield "  " + "  ".join(f"{text:<20}" for text in scores[start : start + 5]).rstrip()
    yield "  nearest training prompts:"
    for near in why["nearest"]:
        text = " ".join(near["prompt"].split())[:80]
        yield f"    {near['similarity']:.3f} {', '.join(near['domains']) or '(none)'}: {text}"
