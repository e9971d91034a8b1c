"""How to reach or run vLLM, and how much of it adapters may take."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
# Qwen3.5 and later; Qwen3-8B and Qwen3-0.6B are of the series before, and name their size.
_QWEN = re.compile(r"qwen3[._-]\d(?![\d.]*b)", re.IGNORECASE)
# What `vllm serve --max-lora-rank` accepts.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def default_work_dir() -> Path:
    """A folder of this user on the RAM disk, or in the temporary folder where there is none."""
    ram = Path("/dev/shm")
    parent = ram if ram.is_dir() else Path(tempfile.gettempdir())
    return parent / f"kiki-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """``model`` is what ``vllm serve`` takes: a Hugging Face folder, or a hub's name.

    Without ``urls`` a server is run as a child process, by ``command``. With them, the servers
    must be started with ``--enable-lora`` and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``, serve
    the same base, and read ``work_dir`` under the same path. ``max_loras`` and ``max_lora_rank``
    then say how these servers were started.

    ``cpu`` says that the servers compute on one (see ``on_cpu``).
    ``lora_bytes`` limits what the adapter slots may take on the device (see ``capacity.py``), and
    ``store_bytes`` what composed adapters may take in ``work_dir``; None is what is there.
    """

    model: str
    urls: tuple[str, ...] = ()
    command: tuple[str, ...] = ("vllm",)
    work_dir: Path = field(default_factory=default_work_dir)
    api_key: str | None = field(default=None, repr=False)
    slots: int = 32
    context_tokens: int = 4096
    max_loras: int = 4
    max_lora_rank: int = 64
    lora_bytes: int | None = None
    store_bytes: int | None = None
    store_mixes: int = 16
    dtype: str = "auto"
    quantization: str | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    parsers: bool | None = None
    extra_args: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cpu: bool | None = None
    start_timeout: float = 900.0
    load_timeout: float = 120.0
    token_timeout: float = 300.0
    probe_interval: float = 10.0

    @property
    def on_cpu(self) -> bool:
        """Whether the base needs an adapter that adds nothing, because a CPU serves it.

        vLLM's CPU build takes "no adapter" (-1) for the last slot's, in a batch with other
        adapters (vllm-project/vllm#48421). Unless ``cpu`` says so, a server on this machine is on
        a CPU where there is no NVIDIA or AMD device. Of others only some builds say it, in their
        version.
        """
        if self.cpu is not None:
            return self.cpu
        here = not self.urls or any(urlsplit(url).hostname in _LOOPBACK for url in self.urls)
        return here and not any(device.exists() for device in _DEVICES)

    @property
    def has_parsers(self) -> bool:
        """Whether to parse reasoning and tool calls as Qwen3.5 and 3.6 write them.

        By the model's name unless ``parsers`` says so.
        """
        return bool(_QWEN.search(self.model)) if self.parsers is None else self.parsers
