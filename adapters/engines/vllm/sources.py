"""The adapters that vLLM may be given, each as a PEFT folder that fits the base."""

from __future__ import annotations

import logging
from pathlib import Path

from adapters.adapter import Adapter
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.compose import Source
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")


def open_source(adapter: Adapter, base: BaseModel, converted: Path) -> Source:
    """The adapter, opened; written to ``converted`` first where it isn't in PEFT's form.

    What is written has the adapter's fingerprint in its name and stays for the next start.
    Raises AdapterError where the adapter can't be read or converted, or doesn't fit the base.
    """
    folder = adapter.path
    if adapter.form != "peft":
        folder = converted / f"{adapter.name}-{adapter.fingerprint[:16]}"
        if not folder.is_dir():
            _convert(adapter, folder)
    # vLLM takes a relative path for the name of an adapter on a hub.
    source = Source.open(folder.absolute(), base.prefix)
    for module, outputs, inputs in source.shapes():
        base.check(module, outputs, inputs)
    return source


def _convert(adapter: Adapter, out: Path) -> None:
    from adapters.folders import read_unchanged
    from adapters.forms.writing import write_lora

    log.info("writing adapter %s in PEFT's form to %s", adapter.name, out)
    try:
        write_lora(read_unchanged(adapter), "peft", out)
    except OSError as error:
        raise AdapterError(f"{adapter.path} can't be written to {out}: {error}.") from error
