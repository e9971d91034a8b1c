"""What ``kiki doctor`` checks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.settings import Settings, settings_file
from kiki import __version__
from kiki.errors import KikiError

if TYPE_CHECKING:
    from adapters.adapter import Adapter, Refusal
    from adapters.engines.vllm import VllmConfig
    from adapters.engines.vllm.forecast import Forecast

_OTHER_FOLDER = "Free memory or space there, or name another folder with vllm_work_dir."


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``fix`` says what to do where something can be done."""

    name: str
    state: Literal["ok", "note", "wrong"]
    detail: str
    fix: str | None = None


def examine(settings: Settings) -> list[Check]:
    """Run every check; nothing is changed, pulled or started."""
    return [
        *_versions(),
        _configuration(),
        _engine(settings),
        *_models(settings),
        *_adapters(settings),
        _policy(settings),
        _router(),
        _memory(settings),
        _port(settings),
        _disk(settings),
    ]


def _versions() -> Iterator[Check]:
    yield Check("kiki", "ok", f"{__version__} on Python {platform.python_version()}")
    for requirement in importlib.metadata.requires("kiki-gateway") or []:
        name, _, pinned = requirement.partition("==")
        if ";" in requirement:
            continue
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "wrong", "not installed", "make setup")
            continue
        if installed == pinned:
            yield Check(name, "ok", installed)
        else:
            yield Check(name, "note", f"{installed}; tested with {pinned}", "make setup")


def _configuration() -> Check:
    return Check("settings", "ok", str(settings_file() or "no kiki.toml; defaults and KIKI_*"))


def _engine(settings: Settings) -> Check:
    from gateway.engines import Machine, choose_engine

    machine = Machine.here()
    try:
        choice = choose_engine(settings, machine)
    except KikiError as error:
        return Check("engine", "wrong", error.message, error.fix)
    path = settings.model_path
    if choice.engine == "llamacpp" and settings.model and not (path and _is_gguf(path)):
        detail = f"llamacpp ({choice.reason}); {settings.model} is no GGUF file"
        return Check("engine", "wrong", detail, "Name a GGUF file, or choose another engine.")
    if choice.engine != "llamacpp" and not settings.model:
        detail = f"{choice.engine} ({choice.reason}); no model is set"
        return Check("engine", "wrong", detail, "Set model to a folder or a name on the hub.")
    if choice.engine == "mlx" and not machine.mlx:
        fix = "pip install 'kiki-gateway[mlx]'"
        return Check("engine", "wrong", f"mlx ({choice.reason}); MLX is not installed", fix)
    if choice.engine == "vllm" and not (machine.vllm or settings.vllm_urls):
        fix = "Install vLLM, or name running servers in vllm_urls."
        return Check("engine", "wrong", f"vllm ({choice.reason}); vLLM is not installed", fix)
    return Check("engine", "ok", f"{choice.engine}: {choice.reason}")


def _models(settings: Settings) -> Iterator[Check]:
    from kiki.assets import BASE_MODEL, verify
    from routing import model_files

    pull = "kiki models pull"
    if settings.model is not None:
        where = settings.model_path or f"{settings.model}, from the hub at the first start"
        yield Check("base model", "ok", str(where))
    else:
        path = settings.models_dir / BASE_MODEL.file
        try:
            verify(BASE_MODEL, path)
            yield Check("base model", "ok", f"{path}, sha256 as expected")
        except KikiError as error:
            yield Check("base model", "wrong", error.message, pull)
    folder = settings.models_dir / model_files.NAME
    try:
        meta = model_files.check(folder)
        yield Check("embedding model", "ok", f"{folder} ({meta.embedding_id})")
    except KikiError as error:
        yield Check("embedding model", "wrong", error.message, pull)


def _adapters(settings: Settings) -> Iterator[Check]:
    from adapters.catalog import Catalog

    try:
        snapshot = Catalog(settings.adapters_dir, base=settings.adapters_base).scan()
    except KikiError as error:
        yield Check("adapters", "wrong", error.message, error.fix)
        return
    names = ", ".join(adapter.name for adapter in snapshot.adapters)
    yield Check("adapters", "ok" if names else "note", names or "none: the base alone")
    for refusal in snapshot.refused:
        yield _left_out(refusal)
    if snapshot.adapters:
        yield from _vllm_room(settings, snapshot.adapters)


def _left_out(refusal: Refusal) -> Check:
    return Check("adapter left out", "wrong", f"{refusal.name}: {refusal.reason}")


def _vllm_room(settings: Settings, adapters: Sequence[Adapter]) -> Iterator[Check]:
    """Whether a mix of the largest adapters fits vLLM's slots and its work folder."""
    from gateway.engines import Machine, choose_engine, vllm_config

    try:
        engine = choose_engine(settings, Machine.here()).engine
    except KikiError:  # the engine's own check says so
        return
    if engine != "vllm" or not settings.model:
        return
    from adapters.engines.vllm.forecast import forecast

    config = vllm_config(settings, settings.model_path or settings.model)
    try:
        ahead = forecast(config, adapters)
    except OSError as error:
        yield Check("vllm room", "wrong", f"{config.work_dir}: {error}", _OTHER_FOLDER)
        return
    yield from map(_left_out, ahead.refused)
    if ahead.sizes:
        yield _slots(ahead, config)
        yield _work_folder(ahead, config)


def _slots(ahead: Forecast, config: VllmConfig) -> Check:
    slot = ahead.capacity.rank
    wanted = sum(ahead.sizes[name].rank for name in ahead.highest)
    device = (
        f"{config.max_loras} slots take {ahead.slot_bytes / 1e9:.2f} GB on the device"
        if ahead.slot_bytes is not None
        else f"what {config.max_loras} slots take on the device isn't known from here"
    )
    largest = f"the largest mix ({', '.join(ahead.highest)}) has rank {wanted}"
    if wanted <= slot:
        return Check("vllm slots", "ok", f"{largest}, a slot {slot}; {device}")
    alone = [name for name in ahead.highest if ahead.sizes[name].rank > slot]
    detail = f"{largest}, a slot only {slot}: {_served(alone)}; {device}"
    from adapters.engines.vllm.config import LORA_RANKS

    ranks = [rank for rank in LORA_RANKS if rank >= wanted]
    fix = f"Set vllm_max_lora_rank = {ranks[0]}." if ranks else "Use adapters of a lower rank."
    if slot < config.max_lora_rank:
        fix = "Raise vllm_lora_memory, or lower vllm_max_loras."
    return Check("vllm slots", "note", detail, fix)


def _work_folder(ahead: Forecast, config: VllmConfig) -> Check:
    there = ahead.capacity.store_bytes
    wanted = sum(ahead.sizes[name].bytes for name in ahead.largest)
    largest = f"the largest mix ({', '.join(ahead.largest)}) takes {wanted / 1e9:.2f} GB"
    room = f"{there / 1e9:.2f} GB for composed adapters in {config.work_dir}"
    if wanted <= there:
        return Check("vllm work folder", "ok", f"{largest} of {room}")
    alone = [name for name in ahead.largest if ahead.sizes[name].bytes > there]
    detail = f"{largest}, of only {room}: {_served(alone)}"
    limited = config.store_bytes is not None and config.store_bytes <= there
    fix = "Raise vllm_store_memory." if limited else _OTHER_FOLDER
    return Check("vllm work folder", "note", detail, fix)


def _served(alone: Sequence[str]) -> str:
    """What becomes of a mix without room; ``alone`` are adapters that don't fit by themselves."""
    left_out = f"; {', '.join(alone)} fit not even alone and are left out" if alone else ""
    return f"its strongest adapters that fit are served{left_out}"


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _policy(settings: Settings) -> Check:
    from adapters.policy import SHIPPED_POLICY, Policy

    file = settings.policy_file or SHIPPED_POLICY
    try:
        policy = Policy.load(file)
    except KikiError as error:
        return Check("policy", "wrong", error.message, error.fix)
    return Check("policy", "ok", f"{len(policy.rows)} measured results in {file}")


def _router() -> Check:
    from routing.domains import load_domains
    from routing.model_files import EMBEDDING_ID
    from routing.router import Router

    try:
        table = load_domains()
        Router.load(table=table, embedding_id=EMBEDDING_ID)
    except KikiError as error:
        return Check("router", "wrong", error.message, error.fix)
    return Check("router", "ok", f"{len(table.domains)} domains, {len(table.outputs)} outputs")


def _memory(settings: Settings) -> Check:
    from memory.lock import owner_of

    folder = settings.data_dir / "memory"
    try:
        there = folder.exists()
    except OSError as error:
        fix = "Choose another data_dir, or make it accessible."
        return Check("memory", "wrong", f"{folder}: {error.strerror}", fix)
    if not there:
        return Check("memory", "ok", f"{folder} will be made at the first start")
    if not os.access(folder, os.W_OK):
        return Check("memory", "wrong", f"{folder} can't be written", f"chown or chmod {folder}")
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("memory", "wrong", f"{folder} has mode {mode:o}", f"chmod 700 {folder}")
    pid = owner_of(folder)
    state = f"in use by process {pid}" if pid else "free"
    return Check("memory", "ok", f"{folder} ({state})")


def _port(settings: Settings) -> Check:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            detail = f"{settings.host}:{settings.port}: {error.strerror}"
            return Check("port", "note", detail, "A gateway may be running; else use --port.")
    return Check("port", "ok", f"{settings.host}:{settings.port} is free")


def _disk(settings: Settings) -> Check:
    folder = settings.data_dir
    while not os.access(folder, os.F_OK):
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < 2:
        return Check("disk", "wrong", f"{free:.1f} GB free at {folder}", "Free at least 2 GB.")
    return Check("disk", "ok", f"{free:.1f} GB free at {folder} ({sys.platform})")
