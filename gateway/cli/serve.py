"""``kiki serve``: the gateway."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from gateway.access.keyring import Keyring
from gateway.settings import Settings, load_settings
from gateway.supervision import inherited_listener
from kiki.errors import SettingsError

if TYPE_CHECKING:
    from gateway.assets import ModelFiles
    from gateway.workers.ready import Ready


@click.command("serve")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
@click.option("--engine", type=click.Choice(["auto", "mlx", "vllm", "llamacpp"]))
@click.option("--model", help="The base: a GGUF file, a folder, or owner/name on the hub.")
@click.option("--adapters", type=click.Path(), help="A folder of adapters, in any form.")
@click.option("--metal-memory-limit", help="MLX: memory it may use, for example 460GB.")
@click.option("--quantization", help="vLLM: how the weights are quantised, for example awq.")
@click.option("--tensor-parallel-size", type=int, help="vLLM: GPUs that share one model.")
@click.option("--gpu-memory-utilization", type=float, help="vLLM: share of the GPU's memory.")
@click.option("--workers", type=int, help="Processes that answer, where vLLM runs elsewhere.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def command(
    host: str | None,
    port: int | None,
    engine: str | None,
    model: str | None,
    adapters: str | None,
    metal_memory_limit: str | None,
    quantization: str | None,
    tensor_parallel_size: int | None,
    gpu_memory_utilization: float | None,
    workers: int | None,
    log_level: str | None,
) -> None:
    """Start the gateway; model files that are missing are pulled first."""
    settings = load_settings(
        host=host,
        port=port,
        engine=engine,
        model=model,
        adapters_dir=adapters,
        metal_memory_limit=metal_memory_limit,
        vllm_quantization=quantization,
        vllm_tensor_parallel_size=tensor_parallel_size,
        vllm_gpu_memory_utilization=gpu_memory_utilization,
        workers=workers,
        log_level=log_level,
    )
    Keyring.of(settings)  # what is wrong with the keys is said before anything is loaded
    listener = listen(settings)

    from gateway.assets import ensure_models
    from gateway.cli.progress import pulling

    with pulling() as progress:
        files = ensure_models(settings, progress)
    if settings.workers > 1:
        _run_workers(settings, files, listener)
    else:
        _run(settings, files, listener)


def listen(settings: Settings) -> socket.socket:
    """Take the port first: a port in use is said before anything is loaded.

    One that systemd's socket unit holds open is taken instead of ``host`` and ``port``.
    """
    inherited = inherited_listener()
    if inherited is not None:
        return inherited
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle off: it would hold answers back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise SettingsError(
            f"Can't listen on {settings.host}:{settings.port}: {error.strerror}.",
            fix="End what uses that port, or choose another with --port or KIKI_PORT.",
        ) from error
    return listener


def _run(settings: Settings, files: ModelFiles, listener: socket.socket) -> None:
    import asyncio

    import uvloop

    from gateway.logs import configure_logging
    from gateway.server import serve
    from gateway.services import Services
    from gateway.workers.ready import Ready

    configure_logging(settings.log_level, settings.log_format, settings.log_file)

    def say_ready(services: Services) -> None:
        _greet(settings, listener, Ready.of(services), services.keyring)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, files, listener, say_ready))


def _run_workers(settings: Settings, files: ModelFiles, listener: socket.socket) -> None:
    from gateway.logs import configure_logging
    from gateway.workers.pool import Pool

    configure_logging(settings.log_level, settings.log_format, settings.log_file)

    def say_ready(ready: Ready) -> None:
        _greet(settings, listener, ready, Keyring.of(settings))
        click.echo(f"workers: {settings.workers}; the first owns the memory")

    Pool(settings, files, listener).serve(say_ready)


def _greet(settings: Settings, listener: socket.socket, ready: Ready, keyring: Keyring) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(f"kiki answers on {address}/v1 (base {ready.model}, engine {ready.engine})")
    click.echo(f"adapters: {', '.join(ready.adapters) or 'none'}")
    for name, reason in ready.left_out:
        click.echo(f"left out: {name}: {reason}")
    click.echo(f"memory: {settings.data_dir / 'memory'}")
    click.echo(f"access: {_access(keyring, settings)}")


def _access(keyring: Keyring, settings: Settings) -> str:
    if keyring.required():
        return f"callers need a key; {keyring.valid} valid (kiki keys list)"
    if settings.allow_remote:
        return "no API keys: open to everyone who reaches the port (allow_remote)"
    return "no API keys: open to programs on this machine alone (kiki keys create NAME)"
