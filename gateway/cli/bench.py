"""``kiki bench``: measure this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from gateway.bench.report import Report

MIN_EPISODES = 1000


@click.group("bench")
def command() -> None:
    """Measure this machine; each benchmark prints one object with --json."""


@command.command("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--requests", type=click.IntRange(5), default=60, show_default=True)
@click.option("--episodes", type=click.IntRange(100), default=10_000, show_default=True)
def pipeline(as_json: bool, requests: int, episodes: int) -> None:
    """The gateway's own time, routing, recall, start, memory, command line, tokens a second."""
    from gateway.bench.pipeline import measure

    _show(lambda progress: measure(requests, episodes, progress), as_json)


@command.command("gateway")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Of each load."
)
@click.option("--connections", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Measure a gateway of so many processes too.",
)
@click.option(
    "--litellm",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="LiteLLM's program, of an environment of its own: pip install 'litellm[proxy]'.",
)
def gateway(
    as_json: bool,
    rounds: int,
    seconds: float,
    connections: int,
    workers: int,
    litellm: Path | None,
) -> None:
    """What the gateway adds to a server that answers at once, beside a proxy that does nothing."""
    from gateway.bench.gateway import Sizes, measure

    sizes = Sizes(rounds=rounds, seconds=seconds, connections=connections, workers=workers)
    _show(lambda progress: measure(sizes, litellm, progress), as_json)


@command.command("router")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--prompts", type=click.IntRange(5, 1000), default=40, show_default=True)
def router(as_json: bool, prompts: int) -> None:
    """A route alone and under load, the start, and its embedding against torch in float32."""
    from gateway.bench.router import measure

    _show(lambda progress: measure(prompts, progress), as_json)


def _sizes(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    sizes = tuple(int(one) if one.strip().isdecimal() else 0 for one in value.split(","))
    if min(sizes) < MIN_EPISODES:
        raise click.BadParameter(
            f"{value!r} is no list of numbers from {MIN_EPISODES}, as in 10000,100000."
        )
    return sizes


@command.command("memory")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--episodes",
    default="10000,100000",
    show_default=True,
    callback=_sizes,
    help="How many episodes one user's memory holds; each number is measured.",
)
def memory(as_json: bool, episodes: tuple[int, ...]) -> None:
    """Recall, acknowledged writes, and what brings them into the stores; embedding apart."""
    from gateway.bench.memory import measure

    _show(lambda progress: measure(episodes, progress), as_json)


def _parts(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    from gateway.bench.adapters import PARTS, parts_named

    found: list[str] = []
    for name in value.split(","):
        if not (parts := parts_named(name.strip())):
            raise click.BadParameter(f"{name.strip()!r} is none of: {', '.join(PARTS)}.")
        found += parts
    return tuple(found)


def _vllm_shape(context: click.Context, option: click.Parameter, value: str) -> str:
    if value != "smollm2":
        from gateway.bench.random_llama import Shape

        try:
            Shape.parse(value)
        except ValueError as error:
            raise click.BadParameter(
                f"{value!r} is neither smollm2 nor a hidden size, a multiple of 128, and a number "
                "of layers, as in 2048x16."
            ) from error
    return value


@command.command("adapters")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--shape",
    type=click.Choice(["tiny", "35b-a3b"]),
    default="tiny",
    show_default=True,
    help="The random model: one for any CPU, or the size of Qwen3.6-35B-A3B for a GPU.",
)
@click.option("--layers", type=click.IntRange(4), default=40, show_default=True)
@click.option(
    "--tokens", type=click.IntRange(1), default=48, show_default=True, help="Of each answer."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often both sides of a comparison run, in turn.",
)
@click.option(
    "--vllm-shape",
    default="smollm2",
    show_default=True,
    callback=_vllm_shape,
    help="What vLLM serves: SmolLM2-135M, or a random Llama, as in 2048x16 (hidden size, layers).",
)
@click.option("--only", callback=_parts, help="Some parts, as in: switch,panel.")
def adapters(
    as_json: bool,
    shape: Literal["tiny", "35b-a3b"],
    layers: int,
    tokens: int,
    rounds: int,
    vllm_shape: str,
    only: tuple[str, ...],
) -> None:
    """Changing, mixing and using adapters, each against the other way of doing it.

    Parts: switch, decode, panel-mlx, panel-llamacpp, compose-vllm. One whose engine isn't
    installed is left out, with the reason. Exits with 1 if nothing could be measured.
    """
    from gateway.bench.adapters import measure
    from gateway.bench.options import Options

    options = Options(shape, layers, tokens, rounds, vllm_shape)
    report = _show(lambda progress: measure(options, only, progress), as_json)
    if not report.metrics:
        raise click.exceptions.Exit(1)


@command.command("negotiator")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--panels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Recorded panels; the shipped ones where it isn't given.",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Questions, their adapters, patterns of right answers; the shipped ones by default.",
)
@click.option("--live", is_flag=True, help="Let the served model judge and dissent: minutes.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Record panels of the served adapters into this file first; goes on where it ended.",
)
def negotiator(
    as_json: bool, panels: Path | None, prompts: Path | None, live: bool, record: Path | None
) -> None:
    """How often panels agree, are judged and meet dissent, and which threshold fits them.

    Measured on recorded drafts and votes. Another base wants panels of its own: --record FILE,
    then catfish_below by what calibrated_catfish_below says.
    """
    from gateway.bench.negotiator import measure
    from gateway.settings import load_settings
    from negotiator.panel_cases import PANELS, PROMPTS

    settings = load_settings()
    asked = prompts or PROMPTS

    def run(progress: Callable[[str, int, int], None]) -> Report:
        if record:
            from gateway.bench.panel_recording import record as record_panels

            record_panels(settings, record, progress, asked)
        return measure(settings, record or panels or PANELS, asked, live, progress)

    _show(run, as_json)


def _show(run: Callable[[Callable[[str, int, int], None]], Report], as_json: bool) -> Report:
    from gateway.cli.progress import counting

    with counting() as progress:
        report = run(progress)
    click.echo(json.dumps(report.to_dict()) if as_json else report.to_text())
    return report
