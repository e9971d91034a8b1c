"""``kiki adapters convert``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adapters.adapter import Form
    from adapters.forms import BaseShape, Written
    from adapters.forms.numbers import Dtype


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(["mlx", "peft", "gguf"]))
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="Where to write: a folder for mlx and peft, a file for gguf.")  # fmt: skip
@click.option("--base", type=click.Path(path_type=Path), metavar="FILE.gguf",
              help="The base model; for gguf the one in the settings, unless given.")  # fmt: skip
@click.option("--dtype", type=click.Choice(["f16", "f32"]),
              help="Number format; unset keeps the source's, which loses nothing.")  # fmt: skip
@click.option("--skip-unsupported", is_flag=True,
              help="Leave out modules that llama.cpp has no name for, and list them.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the adapter that is already at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    source: Path,
    form: Form,
    out: Path,
    base: Path | None,
    dtype: Dtype | None,
    skip_unsupported: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Convert the adapter SOURCE between the forms of mlx_lm, PEFT and llama.cpp.

    SOURCE is a folder in the form of mlx_lm or PEFT, or a GGUF file; which of them is found out.
    The result appears whole or not at all, and does exactly the same as SOURCE unless --dtype
    rounds its numbers.

    \b
    Example:
      kiki adapters convert adapters/shipped/shell --to mlx --out shell-mlx
      kiki adapters convert shell-mlx --to gguf --out shell.gguf

    Exits with 1 when SOURCE is damaged or no LoRA, doesn't fit the base, or --out is taken.
    """
    from rich.console import Console

    from adapters.forms import read_base_shape, read_lora, write_lora
    from adapters.forms.writing import check_free

    check_free(out, force=force)
    given = read_base_shape(base) if base else None
    target = given or _default_base(form)
    with Console(stderr=True).status(f"Converting {source} to {form}"):
        written = write_lora(
            read_lora(source, base=given),
            form,
            out,
            base=target,
            dtype=dtype,
            force=force,
            skip_unsupported=skip_unsupported,
        )
    if as_json:
        click.echo(json.dumps(asdict(written), default=str))
    else:
        _tell(written)


def _default_base(form: Form) -> BaseShape | None:
    """The base model in the settings, for a form that is made for one base."""
    if form != "gguf":
        return None
    from adapters.forms import read_base_shape
    from gateway.assets import gguf_base
    from gateway.settings import load_settings

    return read_base_shape(gguf_base(load_settings()))


def _tell(written: Written) -> None:
    click.echo(
        f"Wrote {written.path} ({written.form}, {written.bytes:,} bytes): rank {written.rank}, "
        f"alpha {written.alpha:g}, numbers in {written.dtype}."
    )
    if written.rounding:
        click.echo(f"The largest rounding error of a number is {written.rounding:.2g}.")
    if written.dropped:
        click.echo(f"Left out, so it is another adapter now: {', '.join(written.dropped)}.")
