"""``kiki adapters check``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from adapters.health import Finding

UNREADABLE, UNHEALTHY = 1, 3
_PATH = click.Path(exists=True, path_type=Path)
_SHOWN = 3  # modules named under a finding; --json has them all


@dataclass(frozen=True, slots=True)
class Checkup:
    """One adapter, examined. What couldn't be read has an ``error`` and no more."""

    name: str
    path: str
    error: str | None = None
    bytes: int = 0
    rank: int = 0
    alpha: float = 0.0
    base: str = ""
    kinds: tuple[str, ...] = ()
    layers: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def state(self) -> str:
        if self.error is not None:
            return "unreadable"
        return "sick" if any(found.level == "sick" for found in self.findings) else "healthy"


@click.command("check")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=_PATH)
@click.option("--base", help="The base model that they must be for: its name, or a GGUF file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: tuple[Path, ...], base: str | None, as_json: bool) -> None:
    """Examine adapters: each PATH is an adapter (folder or GGUF file) or a folder of them.

    Sick are weights that are NaN, infinite, or zeros where training left none, and another base
    model than --base. Other ranks, missing modules and such are warnings.

    \b
    Exit codes:
      0  all are healthy, warnings or not
      1  one can't be read, and none is sick
      2  a wrong call: a path that isn't there, an unknown option
      3  one is sick
    """
    from adapters.folders import adapters_in
    from gateway.cli.progress import counting
    from kiki.errors import AdapterError

    found = [adapter for path in paths for adapter in adapters_in(path) or [path]]
    expected = _kinds_of(base)
    checkups = []
    if len(found) > 1:
        with counting() as progress:
            for done, path in enumerate(found):
                checkups.append(_check(path, base, expected))
                progress("health", done + 1, len(found))
    else:
        checkups = [_check(path, base, expected) for path in found]
    if not checkups:
        raise AdapterError("There was nothing to check.")
    if as_json:
        rows = [{"state": one.state, **asdict(one)} for one in checkups]
        click.echo(json.dumps(rows, indent=2))
    else:
        _print(checkups)
    states = {one.state for one in checkups}
    if "sick" in states:
        raise click.exceptions.Exit(UNHEALTHY)
    if "unreadable" in states:
        raise click.exceptions.Exit(UNREADABLE)


def _check(path: Path, base: str | None, kinds: frozenset[str]) -> Checkup:
    from adapters.folders import name_of, weight_bytes
    from adapters.forms import read_stored
    from adapters.health import examine
    from kiki.errors import AdapterError

    try:
        lora = read_stored(path)
    except AdapterError as error:
        return Checkup(name_of(path), str(path), error=str(error))
    return Checkup(
        name=name_of(path),
        path=str(path),
        bytes=weight_bytes(path),
        rank=lora.rank,
        alpha=lora.alpha,
        base=lora.base,
        kinds=tuple(sorted({weight.kind for weight in lora.weights.values()})),
        layers=len({weight.layer for weight in lora.weights.values()}),
        findings=examine(lora, base=base, kinds=kinds),
    )


def _kinds_of(base: str | None) -> frozenset[str]:
    """The kinds of modules that the base has, where it is a file that says so."""
    from adapters.forms import read_base_shape
    from adapters.forms.gguf_names import module_of

    if base is None or not Path(base).is_file():
        return frozenset()
    shape = read_base_shape(Path(base))
    modules = (module_of(target, shape.architecture) for target in shape.weights)
    return frozenset(module.split(".", 2)[2] for module in modules if module is not None)


def _print(checkups: Sequence[Checkup]) -> None:
    width = max(len(one.name) for one in checkups)
    for one in checkups:
        colour = "green" if one.state == "healthy" else "red"
        head = f"{one.name:<{width}}  {click.style(f'{one.state:<10}', fg=colour)}"
        if one.error is not None:
            click.echo(f"{head}  {one.error}")
            continue
        click.echo(
            f"{head}  {one.bytes / 1e6:>7.1f} MB  rank {one.rank}  alpha {one.alpha:g}  "
            f"{len(one.kinds)} kinds  {one.layers} layers  {one.base or 'base unnamed'}"
        )
        for finding in one.findings:
            click.echo(f"{'':<{width}}  {finding.level}: {finding.detail}")
            if finding.where:
                more = len(finding.where) - _SHOWN
                rest = f" and {more} more" if more > 0 else ""
                click.echo(f"{'':<{width}}    {', '.join(finding.where[:_SHOWN])}{rest}")
    if len(checkups) > 1:
        counts = [f"{sum(one.state == state for one in checkups)} {state}"
                  for state in ("healthy", "sick", "unreadable")]  # fmt: skip
        click.echo(f"{len(checkups)} adapters: {', '.join(counts)}.")
