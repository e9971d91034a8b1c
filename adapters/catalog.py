"""The LoRA adapters on disk: a folder each, in PEFT form, with a card."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import convert
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter folder. The perplexities are on its own held-out text, from its card."""

    name: str
    folder: Path
    rank: int
    alpha: float
    bytes: int
    base: str
    base_perplexity: float | None
    adapter_perplexity: float | None


class Catalog:
    """The adapters of a folder, or the shipped ones."""

    def __init__(self, folder: Path | None, models_dir: Path) -> None:
        self.folder = folder or SHIPPED
        self._converted = models_dir / "adapters"

    def adapters(self) -> list[Adapter]:
        """Every adapter that can be read, by name; a sick one is left out and logged."""
        if not self.folder.is_dir():
            raise AdapterError(
                f"{self.folder}: there is no such folder of adapters.",
                fix="Correct adapters_dir, or unset it to use the shipped ones.",
            )
        found = []
        for path in sorted(self.folder.iterdir()):
            if (path / CONFIG).is_file():
                try:
                    found.append(_read(path))
                except AdapterError as error:
                    log.error("adapter left out: %s", error)
        return found

    def ready(self, base: Path) -> dict[str, Path]:
        """Names to GGUF files for ``base``, converted where that wasn't done before."""
        files = {}
        for adapter in self.adapters():
            try:
                files[adapter.name] = self._convert(adapter, base)
            except AdapterError as error:
                log.error("adapter %s left out: %s", adapter.name, error)
        return files

    def _convert(self, adapter: Adapter, base: Path) -> Path:
        try:
            out = self._converted / f"{adapter.name}-{_key(adapter, base)}.gguf"
            if not out.is_file():
                out.parent.mkdir(parents=True, exist_ok=True)
                convert.convert_peft_to_gguf(adapter.folder, base, out)
        except OSError as error:
            raise AdapterError(f"{adapter.folder} can't be converted: {error}.") from error
        return out


def _read(folder: Path) -> Adapter:
    config = _json(folder / CONFIG)
    card = _json(folder / CARD) if (folder / CARD).is_file() else {}
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise AdapterError(f"{folder}: {WEIGHTS} is missing.", fix="Restore it from its source.")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            f"{folder / CONFIG}: r or lora_alpha is missing or not a number."
        ) from error
    return Adapter(
        name=folder.name,
        folder=folder,
        rank=rank,
        alpha=alpha,
        bytes=weights.stat().st_size,
        base=str(config.get("base_model_name_or_path", "")),
        base_perplexity=card.get("base_perplexity"),
        adapter_perplexity=card.get("adapter_perplexity"),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    except ValueError as error:
        raise AdapterError(f"{path}: not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path}: not a JSON object.")
    return content


def _key(adapter: Adapter, base: Path) -> str:
    """Changes with the adapter's files, the base it is converted for, and the converter."""
    digest = hashlib.sha256(f"{base.name} {base.stat().st_size}".encode())
    digest.update(Path(convert.__file__).read_bytes())
    for name in (WEIGHTS, CONFIG):
        digest.update((adapter.folder / name).read_bytes())
    return digest.hexdigest()[:16]
