"""The shipped adapters, and others made of them, as engines take them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from adapters.adapter import Adapter
from adapters.folders import fingerprint, weight_bytes
from adapters.forms import form_of, read_lora, write_lora

SHIPPED = Path(__file__).parents[2] / "adapters" / "shipped"
NAMES = ("shell", "python", "sql", "cpp")


def adapter_at(path: Path, name: str | None = None) -> Adapter:
    """The adapter in ``path``; its fingerprint follows its bytes."""
    form = form_of(path)
    assert form is not None
    lora = read_lora(path)
    return Adapter(
        name=name or path.stem,
        path=path,
        form=form,
        rank=lora.rank,
        alpha=lora.alpha,
        bytes=weight_bytes(path),
        base=lora.base,
        fingerprint=fingerprint(path),
    )


def shipped(*names: str) -> list[Adapter]:
    """Those of the shipped adapters, or four of them: what one request can mix."""
    return [adapter_at(SHIPPED / name) for name in names or NAMES]


def copied(name: str, folder: Path, *, alpha: float | None = None) -> Adapter:
    """A copy of a shipped adapter in ``folder``, with another alpha if given."""
    out = folder / name
    shutil.copytree(SHIPPED / name, out, dirs_exist_ok=True)
    if alpha is not None:
        config = json.loads((out / "adapter_config.json").read_bytes())
        (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": alpha}))
    return adapter_at(out)


def damaged(name: str, folder: Path) -> Adapter:
    """An adapter whose weights are cut off, as half a download is; the catalog read its config."""
    made = copied(name, folder)
    weights = made.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return replace(made, fingerprint=f"damaged {name}")


def as_mlx(name: str, folder: Path) -> Adapter:
    """A shipped adapter in the form that mlx_lm trains."""
    out = folder / name
    write_lora(read_lora(SHIPPED / name), "mlx", out)
    return adapter_at(out)
