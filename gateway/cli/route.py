"""``kiki route``: what a prompt is about, without inference and without a server."""

from __future__ import annotations

import json

import click

from gateway.settings import load_settings
from kiki.errors import RequestError


@click.command("route")
@click.argument("queries", nargs=-1, required=True)
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True))
@click.option("--top-k", type=click.IntRange(1, 4), default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a query.")
def command(queries: tuple[str, ...], threshold: float | None, top_k: int, as_json: bool) -> None:
    """Show the domains that QUERIES would activate, with their scores."""
    if not all(query.strip() for query in queries):
        raise RequestError("A query is empty.", fix="Give some text.")
    settings = load_settings()

    from gateway.assets import load_embedder
    from gateway.cli.progress import pulling
    from routing.domains import load_domains
    from routing.router import Router

    with pulling() as progress:
        embedder = load_embedder(settings, progress)
    router = Router.load(table=load_domains(), embedding_id=embedder.id)
    for query, vector in zip(queries, embedder.embed(list(queries)), strict=True):
        decision = router.route(
            vector, threshold=threshold or settings.router_threshold, top_k=top_k
        )
        domains = [{"name": d.name, "score": round(d.score, 4)} for d in decision.active]
        if as_json:
            answer = {"query": query, "domains": domains, "fallback": decision.fallback}
            click.echo(json.dumps(answer, ensure_ascii=False))
            continue
        click.echo(query if len(queries) > 1 else "", nl=len(queries) > 1)
        for domain in decision.active:
            click.echo(f"  {domain.name:<14} {domain.score:.3f}  {'█' * round(domain.score * 30)}")
        if decision.fallback:
            best = decision.scores[0]
            click.echo(
                f"  no domain is active (best: {best.name} {best.score:.3f}, "
                f"threshold {decision.threshold:.3f}): the base would answer"
            )
