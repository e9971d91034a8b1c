"""The llama.cpp server as a child process, which runs ``main``.

It reads one line of JSON from stdin (see ``ServerSpec``), prints one line of JSON with the
address once it listens, and exits when stdin closes, so that it can't outlive a parent that was
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass

from adapters.engines.child import Program
from adapters.engines.llamacpp.precision import KvType


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What the child needs to know; ``adapters`` are GGUF paths, an adapter's id is its place."""

    model: str
    adapters: tuple[str, ...]
    slots: int
    context_tokens: int
    threads: int
    kv_type: KvType
    flash_attention: bool | None

    def program(self) -> Program:
        """How to run it as a child process."""
        # Not -m: it warns of a module that its package has imported already.
        command = (sys.executable, "-c", f"from {__name__} import main; main()")
        return Program("llama.cpp", self.model, command, self._handshake)

    async def _handshake(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(asdict(self)).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        return str(json.loads(line)["url"]) if line else ""


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    # The address is the only line on stdout; what the library prints there goes to the log.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Spinning OpenMP threads starve everything else on a shared machine; read at import time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = spec["model"]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in spec["adapters"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = spec["slots"]
    params.n_ctx = spec["slots"] * spec["context_tokens"]
    params.cpuparams.n_threads = spec["threads"]
    params.cpuparams_batch.n_threads = spec["threads"]
    # The RAM prompt cache hands a cache made under one adapter to another (llama.cpp#26207).
    params.cache_ram_mib = 0
    kv_types = xllamacpp.ggml_type
    params.cache_type_k = params.cache_type_v = {
        "f16": kv_types.GGML_TYPE_F16,
        "f32": kv_types.GGML_TYPE_F32,
        "q8_0": kv_types.GGML_TYPE_Q8_0,
    }[spec["kv_type"]]
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = {
        None: flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
        True: flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        False: flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[spec["flash_attention"]]
    params.ctx_shift = False
    params.use_jinja = True
    params.ui = False
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:  # llama.cpp has said why on the lines before
        raise SystemExit(str(error)) from None
    print(json.dumps({"url": server.listening_address}), file=answer, flush=True)
    sys.stdin.read()
    # The server's destructor waits for requests in flight; the parent is done with them.
    os._exit(0)
