"""Which files of a source are the adapter that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from kiki.errors import AdapterError
from kiki.names import near

WEIGHTS = ("adapter_model.safetensors", "adapters.safetensors")
CONFIG = "adapter_config.json"
TEXTS = (CONFIG, "card.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
"""What is taken beside the weights; the rest stays where it is."""

MOST_WEIGHTS = 8 << 30  # bytes: twice an adapter of rank 16 on Qwen3.6-35B-A3B in float32
MOST_TEXT = 1 << 20

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True)
class Choice:
    """An adapter's files by the names they get, each with the most bytes that are taken.

    ``folder`` is where they lie in the source. ``gguf`` says that it is a single GGUF file.
    """

    folder: PurePosixPath
    files: Mapping[str, tuple[PurePosixPath, int]]
    gguf: bool


def choose(files: Mapping[PurePosixPath, int], inside: str, source: str) -> Choice:
    """The one adapter in ``files``, or the one in their folder ``inside``.

    Raises AdapterError where there is none, there are several (it lists them), its weights would
    have to be unpickled, or a file is too large.
    """
    root = PurePosixPath(inside)
    below = {path: size for path, size in files.items() if path.is_relative_to(root)}
    places = sorted({_place(path) for path in below if _is_weights(path)})
    if root in places:
        places = [root]
    if not places:
        raise _nothing(files, below, inside, source)
    if len(places) > 1:
        names = ", ".join(str(place.relative_to(root)) for place in places)
        raise AdapterError(
            f"{source} holds {len(places)} adapters: {names}.",
            fix=f"Name one of them: {source.rstrip('/')}/{places[0].relative_to(root)}",
        )
    return _pick(places[0], below, source)


def _is_weights(path: PurePosixPath) -> bool:
    return path.name in WEIGHTS or path.suffix == ".gguf"


def _place(path: PurePosixPath) -> PurePosixPath:
    """What names an adapter: its folder, or a GGUF file itself."""
    return path if path.suffix == ".gguf" else path.parent


def _pick(place: PurePosixPath, files: Mapping[PurePosixPath, int], source: str) -> Choice:
    gguf = place.suffix == ".gguf" and place in files
    if gguf:
        wanted = {place.name: (place, MOST_WEIGHTS)}
    else:
        # Weights in both forms would be two adapters; the first form is taken.
        weights = next(place / name for name in WEIGHTS if place / name in files)
        if place / CONFIG not in files:
            raise AdapterError(
                f"{source}: {place / CONFIG} is missing.", fix="Without it the scale isn't known."
            )
        texts = {name: (place / name, MOST_TEXT) for name in TEXTS if place / name in files}
        wanted = {weights.name: (weights, MOST_WEIGHTS), **texts}
    for path, limit in wanted.values():
        if files[path] > limit:
            raise AdapterError(
                f"{source}: {path} has {files[path]} bytes; at most {limit} are taken.",
                fix="It is no adapter of the bases that kiki serves.",
            )
    return Choice(place.parent if gguf else place, wanted, gguf)


def _nothing(
    files: Mapping[PurePosixPath, int],
    below: Iterable[PurePosixPath],
    inside: str,
    source: str,
) -> AdapterError:
    pickles = [path for path in below if path.suffix in _PICKLES]
    if pickles:
        return AdapterError(
            f"{source} has its weights in {pickles[0]}, a pickle: reading one runs whatever code "
            "its author put in.",
            fix="Ask for safetensors, or convert it where nothing can be harmed.",
        )
    known = {str(_place(path)) for path in files if _is_weights(path)}
    hint = near(inside, known) if inside else ""
    return AdapterError(
        f"{source} holds no adapter.{hint}",
        fix=f"An adapter is a .gguf file, or a folder with {' or '.join(WEIGHTS)}.",
    )
