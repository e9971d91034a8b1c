"""Which form an adapter on disk has, and reading it."""

from __future__ import annotations

from pathlib import Path

from adapters.adapter import Form
from adapters.forms import gguf, mlx, peft
from adapters.forms.base import BaseShape
from adapters.forms.gguf_file import NUMBER_FORMATS, read_gguf_header
from adapters.forms.tensors import read_header
from adapters.lora import Lora
from kiki.errors import AdapterError


def form_of(path: Path) -> Form | None:
    """The form of the adapter at ``path``, judged by file names and first bytes; None for none.

    A folder with the weights of both mlx and PEFT is PEFT's.
    """
    if path.is_dir():
        if (path / peft.WEIGHTS_FILE).exists():
            return "peft"
        return "mlx" if (path / mlx.WEIGHTS_FILE).exists() else None
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return "gguf" if file.read(4) == b"GGUF" else None
    except OSError:
        return None


def read_lora(path: Path, *, base: BaseShape | None = None) -> Lora:
    """The adapter at ``path``: an mlx folder, a PEFT folder or a GGUF file.

    Every form keeps the update of each weight exactly: BF16 is read as float32, and differences
    of scale or rank between modules go into ``b``. Values are not judged: NaN is read as NaN.
    ``base`` is needed for a GGUF file that wasn't written here and whose rows have an order that
    depends on the base's heads (llama's q and k, the linear attention).
    Raises AdapterError when there is no adapter at ``path``, or one that is damaged or no LoRA.
    """
    if not path.exists():
        raise AdapterError(f"{path} is missing.", fix="Correct the path of the adapter.")
    form = form_of(path)
    if form == "mlx":
        return mlx.read_mlx(path)
    if form == "peft":
        return peft.read_peft(path)
    if form == "gguf":
        return gguf.read_gguf(path, base)
    raise AdapterError(
        f"{path} holds no adapter.",
        fix=f"Give a folder with {mlx.WEIGHTS_FILE} or {peft.WEIGHTS_FILE}, or a GGUF file.",
    )


def read_stored(path: Path) -> Lora:
    """The adapter at ``path`` as far as its health goes: a GGUF file needs no base for that."""
    return gguf.read_stored(path) if form_of(path) == "gguf" else read_lora(path)


def number_formats(path: Path) -> list[str]:
    """The number formats of the adapter's tensors, as ``f16``, by its file's header.

    Raises AdapterError when the file is damaged.
    """
    form = form_of(path)
    if form == "gguf":
        _, tensors = read_gguf_header(path)
        return sorted({NUMBER_FORMATS.get(tensor.kind, "other") for tensor in tensors})
    header, _ = read_header(path / (mlx if form == "mlx" else peft).WEIGHTS_FILE)
    return sorted({entry["dtype"].lower() for entry in header.values()})
