"""The adapters that vLLM may be given, each as a PEFT folder that fits the base."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import forms
from adapters.adapter import Adapter
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.tensors import ITEM_BYTES, Kind, Stamp, Stored, changed, stored_tensors
from adapters.folders import fingerprint, read_unchanged
from adapters.forms.folder import CONFIG_FILE, read_config
from adapters.forms.peft import WEIGHTS_FILE
from adapters.forms.peft_config import Scales, read_scales
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_PREFIX = re.compile(r"^(?:language_model\.model|model\.language_model|model)\.(?=layers\.)")

Key = tuple[str, str]  # a module, and "A" or "B"
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Half:
    """Half a module: where its numbers lie, what they are multiplied by (A by 1).

    ``shape`` has the rank in the middle: (experts, rank, inputs) or (outputs, rank, experts).
    """

    stored: Stored
    shape: Shape
    scale: float


@dataclass(frozen=True, slots=True)
class Source:
    """A PEFT folder as it was when it was opened; its numbers stay on disk.

    ``native`` says that the folder's own names are those of the server's modules.
    """

    folder: Path
    config: Mapping[str, Any]
    stamps: Mapping[Path, Stamp]
    halves: Mapping[Key, Half]
    rank: int
    native: bool

    @classmethod
    def open(cls, folder: Path, prefix: str) -> Source:
        """Look at the adapter. ``prefix`` is what the server's modules begin with (``model.``).

        Raises AdapterError unless it is a plain LoRA whose shapes fit its config.
        """
        files = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        try:
            stamps = {file: Stamp.of(file) for file in files}
        except OSError as error:
            raise AdapterError(f"{folder} can't be read: {error}.") from error
        config = read_config(folder)
        scales = read_scales(config, folder / CONFIG_FILE)
        tensors: dict[Key, Stored] = {}
        native = True
        for name, stored in stored_tensors(folder / WEIGHTS_FILE).items():
            match = _NAME.fullmatch(name)
            if match is None or len(stored.shape) != 2:
                raise AdapterError(f"{folder}: {name!r} isn't half of a LoRA.")
            module = _PREFIX.sub(prefix, match[1])
            native = native and module == match[1]
            tensors[module, match[2]] = stored
        if not tensors:
            raise AdapterError(f"{folder} holds no weights.")
        rank = max([scales.rank, *scales.ranks.values()])
        source = cls(folder, config, stamps, _halves(folder, tensors, scales), rank, native)
        source.check()
        return source

    @property
    def weights(self) -> tuple[Path, Stamp]:
        """The file of the numbers, as it was."""
        file = self.folder / WEIGHTS_FILE
        return file, self.stamps[file]

    @property
    def unchanged(self) -> bool:
        """Whether no file was written to, cut short or replaced since."""
        try:
            return all(Stamp.of(file) == stamp for file, stamp in self.stamps.items())
        except OSError:
            return False

    def check(self) -> None:
        """Raise AdapterError unless it is unchanged."""
        if not self.unchanged:
            raise changed(self.folder)

    def bytes_as(self, kind: Kind | None) -> int:
        """What its numbers take, written as ``kind``; as they are for None."""
        stored = [half.stored for half in self.halves.values()]
        return sum(each.size * ITEM_BYTES[kind or each.kind] for each in stored)

    def shapes(self) -> Iterator[tuple[str, int, int]]:
        """Each adapted module with its outputs and inputs."""
        for module, half in self.halves:
            if half == "A":
                outputs = self.halves[module, "B"].stored.shape[0]
                yield module, outputs, self.halves[module, "A"].stored.shape[1]


def open_source(adapter: Adapter, base: BaseModel, converted: Path) -> Source:
    """The adapter as it was found fit; written to ``converted`` first where it isn't PEFT's form.

    What is written is named by the adapter's fingerprint, the base and the converter, and stays
    for the next start. Raises AdapterError where the adapter can't be read or converted, has
    changed, or doesn't fit the base.
    """
    if adapter.form == "peft":
        # vLLM takes a relative path for the name of an adapter on a hub.
        source = Source.open(adapter.path.absolute(), base.prefix)
        try:
            same = fingerprint(adapter.path) == adapter.fingerprint
        except OSError as error:
            raise AdapterError(f"{adapter.path} can't be read: {error}.") from error
        if not same:
            raise changed(adapter.path)
        source.check()
    else:
        source = Source.open(_converted(adapter, base, converted).absolute(), base.prefix)
    for module, outputs, inputs in source.shapes():
        base.check(module, outputs, inputs)
    return source


def _converted(adapter: Adapter, base: BaseModel, parent: Path) -> Path:
    from adapters.forms.writing import write_lora

    version = hashlib.sha256(f"{adapter.fingerprint} {base.digest} {_converter()}".encode())
    out = parent / f"{adapter.name}-{version.hexdigest()[:16]}"
    if not out.is_dir():
        log.info("writing adapter %s in PEFT's form to %s", adapter.name, out)
        try:
            write_lora(read_unchanged(adapter), "peft", out)
        except OSError as error:
            raise AdapterError(f"{adapter.path} can't be written to {out}: {error}.") from error
    return out


@functools.cache
def _converter() -> str:
    """Changes with the code that reads and writes the forms."""
    assert forms.__file__
    digest = hashlib.sha256()
    for module in sorted(Path(forms.__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def _halves(folder: Path, tensors: Mapping[Key, Stored], scales: Scales) -> dict[Key, Half]:
    halves = {}
    for module in dict.fromkeys(module for module, _ in tensors):
        a, b = tensors.get((module, "A")), tensors.get((module, "B"))
        if a is None or b is None:
            raise AdapterError(f"{folder}: {module} has only one of lora_A and lora_B.")
        rank = scales.rank_of(_parameter(module))
        if a.shape[0] != b.shape[1] or a.shape[0] % rank:
            raise AdapterError(
                f"{folder}: {module} has shapes A {a.shape} and B {b.shape}, "
                f"but the config says rank {rank}."
            )
        experts = a.shape[0] // rank
        scale = scales.default * scales.factor(_parameter(module))
        halves[module, "A"] = Half(a, (experts, rank, a.shape[1]), 1.0)
        halves[module, "B"] = Half(b, (b.shape[0], rank, experts), scale)
    return halves


def _parameter(module: str) -> str:
    """The path that PEFT's patterns name: a wrapped parameter is named by itself."""
    if module.endswith(".experts.base_layer"):
        return module.removesuffix("base_layer") + "gate_up_proj"
    return f"{module}.down_proj" if module.endswith(".experts") else module
