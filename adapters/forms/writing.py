"""Writing an adapter in one of the three forms: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.adapter import Form
from adapters.forms.base import BaseShape
from adapters.forms.gguf import is_gguf_adapter, unsupported, write_gguf
from adapters.forms.layout import is_nested
from adapters.forms.mlx import write_mlx
from adapters.forms.numbers import Dtype, to_dtype, uniform
from adapters.forms.peft_writing import write_peft
from adapters.forms.reading import form_of, number_formats
from adapters.lora import Lora
from kiki.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Written:
    """What was written where. ``rounding`` is the largest error of a rounded number, 0 for none.

    ``dtype`` names the number formats in the file: ``f16``, ``f32`` or ``f16+f32``.
    ``dropped`` names the kinds of modules left out, because the form has no place for them.
    """

    path: Path
    form: Form
    bytes: int
    rank: int
    alpha: float
    dtype: str
    rounding: float
    dropped: tuple[str, ...] = ()


def write_lora(
    lora: Lora,
    form: Form,
    out: Path,
    *,
    base: BaseShape | None = None,
    dtype: Dtype | None = None,
    force: bool = False,
    skip_unsupported: bool = False,
) -> Written:
    """Write ``lora`` to ``out``: a folder for ``mlx`` and ``peft``, a file for ``gguf``.

    ``base`` is needed for ``gguf``; the other forms take the names of its architecture from it
    where it is given. ``dtype`` None keeps the numbers as they are. With ``force`` a file or an
    adapter's folder at ``out`` is replaced; another folder never is.
    Raises AdapterError when ``out`` is taken or can't be written, the adapter doesn't fit the base
    or the form, or a number doesn't fit ``dtype``.
    """
    if not lora.weights:
        raise AdapterError(f"{lora.name} holds no weights.")
    check_free(out, force=force)
    dropped: tuple[str, ...] = ()
    if form == "gguf":
        if base is None:
            raise AdapterError(
                "A GGUF adapter is made for one base model.",
                fix="Give the base model's GGUF file (--base).",
            )
        dropped = unsupported(lora, base)
        if dropped:
            lora = _without(lora, dropped, base, skip=skip_unsupported)
    made, rounding = to_dtype(uniform(lora), dtype)
    try:
        with _appearing(out) as temporary:
            _write(made, form, base, temporary)
        size, dtype_written = _size(out), "+".join(number_formats(out))
    except OSError as error:
        raise AdapterError(f"{out} can't be written: {error}.") from error
    return Written(
        path=out,
        form=form,
        bytes=size,
        rank=made.rank,
        alpha=made.alpha,
        dtype=dtype_written,
        rounding=rounding,
        dropped=dropped,
    )


def _write(lora: Lora, form: Form, base: BaseShape | None, path: Path) -> None:
    if form == "gguf":
        assert base is not None  # write_lora refuses that
        write_gguf(lora, base, path)
        return
    path.mkdir()
    nested = is_nested(lora, base)
    if form == "mlx":
        write_mlx(lora, path, nested=nested, layers=base.layers if base else None)
    else:
        write_peft(lora, path, nested=nested)


def check_free(out: Path, *, force: bool = False) -> None:
    """Raise AdapterError when ``out`` is taken; with ``force``, by anything but an adapter."""
    if not os.path.lexists(out):
        return
    if not force:
        raise AdapterError(f"{out} is there already.", fix="Choose another, or add --force.")
    if out.is_dir() and form_of(out) is None and any(out.iterdir()):
        raise AdapterError(f"{out} is a folder without an adapter; it isn't replaced.")
    if out.is_file() and not is_gguf_adapter(out):
        raise AdapterError(f"{out} is no adapter; it isn't replaced.", fix="Choose another --out.")


def _without(lora: Lora, kinds: tuple[str, ...], base: BaseShape, *, skip: bool) -> Lora:
    if not skip:
        raise AdapterError(
            f"{lora.name} adapts {', '.join(kinds)}, for which llama.cpp has no name in "
            f"{base.architecture}.",
            fix="Add --skip-unsupported to leave them out; the adapter is then another one.",
        )
    kept = {name: weight for name, weight in lora.weights.items() if weight.kind not in kinds}
    if not kept:
        raise AdapterError(f"{lora.name} adapts nothing but {', '.join(kinds)}.")
    return replace(lora, weights=kept)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A path to write to, beside ``out``; it becomes ``out`` when the block ends well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as workplace:
        made = Path(workplace) / "made"
        yield made
        if out.is_dir() and not out.is_symlink():
            # A folder can't be replaced in one step; the old one steps aside, and back on failure.
            old = Path(workplace) / "old"
            out.rename(old)
            try:
                made.rename(out)
            except OSError:
                old.rename(out)
                raise
        elif made.is_dir():
            out.unlink(missing_ok=True)
            made.rename(out)
        else:
            made.replace(out)


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
