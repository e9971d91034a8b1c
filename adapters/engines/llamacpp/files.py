"""Adapters as files that llama.cpp loads: made once for a base, kept while they are in use."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters import forms
from adapters.adapter import Adapter, Refusal
from adapters.engines.llamacpp import fit
from adapters.engines.llamacpp.fit import BaseTensors, check_gguf_fits, read_base_tensors
from adapters.folders import check_unchanged, read_unchanged
from adapters.forms import BaseShape, read_base_shape, write_lora
from kiki.errors import AdapterError

UNUSED_DAYS = 30


@dataclass(frozen=True, slots=True)
class AdapterSet:
    """Adapters by name, as GGUF files. They stay on disk until ``release``."""

    files: Mapping[str, Path]
    fingerprints: Mapping[str, str]
    _locks: list[int] = field(default_factory=list, compare=False)

    def hold(self, file: Path) -> None:
        """Keep ``file`` on disk. Raises OSError."""
        lock = os.open(file, os.O_RDONLY)
        self._locks.append(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)

    def release(self) -> None:
        while self._locks:
            os.close(self._locks.pop())


class AdapterFiles:
    """The adapters of one base model as GGUF, in a folder that other gateways may share.

    A GGUF adapter is copied: what a server loads, at its first start and after a crash, is then
    what was found fit, whatever becomes of the file that it came from.

    Whoever uses a file holds a shared lock (flock) on it, which the kernel frees with the process.
    A file without a lock is removed when the adapter has another fingerprint now, or when nothing
    has used it for 30 days. Making and removing take turns by a lock on the folder.
    """

    def __init__(self, base: Path, folder: Path, *, f32: bool = False) -> None:
        self._base = base
        self._folder = folder
        self._f32 = f32
        self._shape: BaseShape | None = None
        self._tensors: BaseTensors | None = None

    def prepare(self, adapters: Sequence[Adapter]) -> tuple[AdapterSet, tuple[Refusal, ...]]:
        """The adapters that fit the base, made where that wasn't done; and the others.

        Raises AdapterError when the folder can't be written.
        """
        files: dict[str, Path] = {}
        fingerprints: dict[str, str] = {}
        made = AdapterSet(files, fingerprints)
        refused = []
        try:
            with self._alone():
                for adapter in adapters:
                    try:
                        files[adapter.name] = self._file(adapter, made)
                        fingerprints[adapter.name] = adapter.fingerprint
                    except AdapterError as error:
                        refused.append(Refusal(adapter.name, adapter.path, str(error)))
                    except OSError as error:
                        reason = f"{adapter.path} can't be put into {self._folder}: {error}."
                        refused.append(Refusal(adapter.name, adapter.path, reason))
                self._sweep(files)
        except BaseException:
            made.release()
            raise
        return made, tuple(refused)

    def _file(self, adapter: Adapter, made: AdapterSet) -> Path:
        version = hashlib.sha256(adapter.fingerprint.encode()).hexdigest()[:16]
        out = self._folder / f"{adapter.name}-{self._for_base}-{version}.gguf"
        if not out.is_file():
            if adapter.form == "gguf":
                self._copy(adapter, out)
            else:
                self._convert(adapter, out)
        made.hold(out)
        os.utime(out)
        return out

    def _copy(self, adapter: Adapter, out: Path) -> None:
        self._tensors = self._tensors or read_base_tensors(self._base)
        copy = self._folder / ".copy.gguf"  # there is one at a time
        try:
            check_gguf_fits(adapter.path, self._tensors)
            shutil.copyfile(adapter.path, copy)
            check_unchanged(adapter, copy)
            copy.replace(out)
        finally:
            copy.unlink(missing_ok=True)

    def _convert(self, adapter: Adapter, out: Path) -> None:
        self._shape = self._shape or read_base_shape(self._base)
        lora = read_unchanged(adapter, self._shape)
        write_lora(lora, "gguf", out, base=self._shape, dtype="f32" if self._f32 else None)

    def _sweep(self, files: Mapping[str, Path]) -> None:
        """Remove what is stale and nobody's; a file that can't be removed stays."""
        stale = {
            path
            for name, file in files.items()
            # A name may hold any character but "/"; the two parts after it have a fixed length.
            for path in self._folder.iterdir()
            if path.name.startswith(f"{name}-{self._for_base}-")
            and len(path.name) == len(file.name)
            and path != file
        }
        oldest = time.time() - UNUSED_DAYS * 86_400
        for path in self._folder.glob("*.gguf"):
            if path in stale or path.stat().st_mtime < oldest:
                _remove_unless_locked(path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise AdapterError(
                f"{self._folder}, where converted adapters are kept, can't be written: {error}.",
                fix="Make it writable, or choose another models_dir.",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @functools.cached_property
    def _for_base(self) -> str:
        """Changes with the base, the number format, and the code that converts and checks."""
        size = self._base.stat().st_size if self._base.is_file() else 0
        digest = hashlib.sha256(f"{self._base.name} {size} {self._f32}".encode())
        assert forms.__file__
        for module in (Path(fit.__file__), *sorted(Path(forms.__file__).parent.glob("*.py"))):
            digest.update(module.read_bytes())
        return digest.hexdigest()[:8]


def _remove_unless_locked(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
