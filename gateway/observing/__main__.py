"""``python -m gateway.observing``: write the dashboards, or watch a gateway at work."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

import click

from gateway.bench.running import running_gateway
from gateway.observing.files import RULES, write_dashboards
from gateway.observing.prometheus import running_prometheus
from gateway.observing.traffic import traffic
from kiki.errors import KikiError


@click.group()
def cli() -> None:
    """Dashboards as code, and a gateway, Prometheus and traffic to see them alive."""


@cli.command()
def dashboards() -> None:
    """Write deploy/grafana/dashboards."""
    for path in write_dashboards():
        click.echo(path)


@cli.command()
@click.option("--rules", type=click.Path(path_type=Path), default=RULES, help="Alerting rules.")
@click.option("--requests", type=int, help="End after so many; default: at Ctrl-C.")
def run(rules: Path, requests: int | None) -> None:
    """Start a gateway and Prometheus, drive traffic, and say where to look."""
    try:
        _observe(rules, requests)
    except KeyboardInterrupt:
        click.echo("\nStopped")


def _observe(rules: Path, requests: int | None) -> None:
    click.echo("Starting a gateway and Prometheus, with a memory of their own")
    with (
        tempfile.TemporaryDirectory(prefix="kiki-observe-") as folder,
        running_gateway() as gateway,
        running_prometheus(gateway.url, rules, Path(folder)) as prometheus,
    ):
        click.echo(f"gateway      {gateway.url}  (/metrics, /health)")
        click.echo(f"Prometheus   {prometheus.url}  (/alerts, /graph)")
        click.echo(f"Grafana      KIKI_PROMETHEUS_URL={prometheus.url}, see deploy/grafana")
        click.echo("Ctrl-C ends all of it.")
        statuses: Counter[int] = Counter()
        for sent in islice(traffic(gateway.url), requests):
            statuses[sent.status] += 1
            firing = ", ".join(sorted(prometheus.firing())) or "none"
            told = ", ".join(f"{number} x {status}" for status, number in statuses.items())
            click.echo(f"\r\x1b[Ksent {told}; alerts that fire: {firing}", nl=False)
        click.echo()


def main() -> None:
    """An error of ours is one line."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KikiError as error:
        click.echo(f"observe: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
