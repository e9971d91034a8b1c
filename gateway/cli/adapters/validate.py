"""``kiki adapters validate``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("validate")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path | None, as_json: bool) -> None:
    """Check the training recipes: of this project, of the folder PATH, or of one file.

    Rank and alpha, base, layers, module kinds, learning rate, iterations by family, refused
    methods, the order of the curriculum, and that recipes and routing table name the same domains.
    Exits with 1 when a rule is broken.
    """
    from adapters.recipes import RECIPES, validate
    from routing.domains import load_domains

    families = {domain.name: domain.family for domain in load_domains().domains}
    recipes, findings = validate(path or RECIPES, families)
    if as_json:
        rows = [
            {"rule": found.rule, "file": str(found.path), "key": found.key,
             "message": found.message, "fix": found.fix}
            for found in findings
        ]  # fmt: skip
        click.echo(json.dumps({"recipes": len(recipes), "findings": rows}, indent=2))
    else:
        for found in findings:
            click.echo(f"{found} [{found.rule}]")
        kept = "all rules are kept" if not findings else f"{len(findings)} rules are broken"
        click.echo(f"{len(recipes)} recipes read: {kept}.")
    if findings:
        raise click.exceptions.Exit(1)
