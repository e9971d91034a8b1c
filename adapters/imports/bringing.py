"""Import one adapter: fetched aside, checked, and moved into its place whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.folders import check_name
from adapters.forms import read_base_shape, read_lora
from adapters.health import examine, is_sick
from adapters.imports.choosing import Choice, choose
from adapters.imports.sources import Source
from kiki.assets import sha256_of
from kiki.errors import AdapterError

SOURCE_FILE = "source.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """An adapter in its place. ``files`` maps its files' names to their sha256 in hex."""

    name: str
    path: Path
    source: str
    revision: str
    folder: str
    files: Mapping[str, str]
    warnings: tuple[str, ...]
    date: str


def import_adapter(
    source: Source,
    *,
    name: str | None,
    folder: Path,
    base: str,
    base_gguf: Path | None = None,
    force: bool = False,
) -> Imported:
    """Bring the adapter of ``source`` into ``folder`` under ``name`` (None: its own name there).

    ``base`` is the name of the model that it must be trained for; ``base_gguf`` is needed to read
    a GGUF adapter. Where it came from is written into ``source.json`` beside its files, or into
    ``NAME.source.json`` for a GGUF file. No code of the source is run. Raises AdapterError when
    the adapter is missing, damaged, sick or for another base, the name is wrong or taken, or it
    can't be moved to its place; an adapter that it was to replace is then still there.
    """
    choice = choose(source.files(), source.inside, source.name)
    name = check_name(name or _own_name(choice, source))
    target = folder / (f"{name}.gguf" if choice.gguf else name)
    if not force and any((folder / file).exists() for file in (name, f"{name}.gguf")):
        raise AdapterError(
            f"There is an adapter {name!r} in {folder} already.",
            fix="Give another --name, or replace it with --force.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that moving it there is one step; hidden, so that nothing serves it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".import-") as work:
        made = Path(work) / name
        made.mkdir()
        for file, (found, limit) in choice.files.items():
            source.copy(found, made / file, limit)
        record = Imported(
            name=name,
            path=target,
            source=source.name,
            revision=source.revision,
            folder=str(choice.folder),
            files={file: sha256_of(made / file) for file in choice.files},
            warnings=_examine(made, choice, base, base_gguf),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _write_record(record, made)
        pieces = {made: target}
        if choice.gguf:
            weights = made / next(iter(choice.files))
            pieces = {made / SOURCE_FILE: folder / f"{name}.{SOURCE_FILE}", weights: target}
        _put(pieces, [folder / old for old in (name, f"{name}.gguf", f"{name}.{SOURCE_FILE}")])
    return record


def _put(pieces: Mapping[Path, Path], replaced: Sequence[Path]) -> None:
    """Move each piece to its target, where what is ``replaced`` makes room.

    Raises AdapterError where a step fails; all is then as it was before.
    """
    folder = replaced[0].parent
    aside = Path(tempfile.mkdtemp(dir=folder, prefix=".replaced-"))
    away = {old: aside / old.name for old in replaced if os.path.lexists(old)}
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in (*away.items(), *pieces.items()):
            source.rename(target)
            done.append((source, target))
    except BaseException as error:
        _undo(done, aside)
        if not isinstance(error, OSError):
            raise
        raise AdapterError(
            f"The adapter can't be moved into {folder}: {error}.",
            fix="What was there is as it was.",
        ) from error
    shutil.rmtree(aside, ignore_errors=True)


def _undo(moves: Sequence[tuple[Path, Path]], aside: Path) -> None:
    try:
        for source, target in reversed(moves):
            target.rename(source)
        aside.rmdir()
    except OSError as error:
        raise AdapterError(
            f"The adapter can't be moved back to its place: {error}.",
            fix=f"What was there lies in {aside}.",
        ) from error


def _examine(made: Path, choice: Choice, base: str, base_gguf: Path | None) -> tuple[str, ...]:
    """What is odd with the adapter. Raises AdapterError for one that must not be served."""
    path = made / next(iter(choice.files)) if choice.gguf else made
    shape = read_base_shape(base_gguf) if choice.gguf and base_gguf else None
    findings = examine(read_lora(path, base=shape), base=base)
    if is_sick(findings):
        raise AdapterError(
            f"The adapter isn't taken: {findings[0].detail}",
            fix="For an adapter of another base, name that base with --base.",
        )
    return tuple(finding.detail for finding in findings)


def _own_name(choice: Choice, source: Source) -> str:
    if choice.gguf:
        return Path(next(iter(choice.files))).stem.lower()
    here = Path(source.name).resolve()
    return choice.folder.name or (here.name if here.is_dir() else here.stem).lower()


def _write_record(record: Imported, made: Path) -> None:
    values = asdict(record)
    del values["path"]  # it lies beside this file, wherever that is moved
    (made / SOURCE_FILE).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
