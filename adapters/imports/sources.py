"""Where an adapter can come from. A source lists its files and copies the ones that are asked for.

Nothing is unpacked or copied by the source's own paths: each wanted file is written under its bare
name, so that no ``..`` and no link can lead out of the target.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from kiki.errors import AdapterError

HUB_TIMEOUT_S = 15.0
_HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:/(?P<inside>[\w./-]+))?", re.ASCII)
_CHUNK = 1 << 20
# What zipfile raises for an archive that is cut off, damaged, encrypted or packed in other ways.
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)


class Source(Protocol):
    """``name`` is how it was asked for, ``revision`` its commit, "" where it has none.

    ``inside`` is the folder within it that was asked for, "" for none.
    """

    name: str
    revision: str
    inside: str

    def files(self) -> Mapping[PurePosixPath, int]:
        """Its files with their sizes in bytes."""
        ...

    def copy(self, file: PurePosixPath, into: Path, limit: int) -> None:
        """Write the file to ``into``. Raises AdapterError beyond ``limit`` bytes."""
        ...


def open_source(text: str, revision: str | None = None) -> Source:
    """What ``text`` names: a path on this machine, or ``owner/name[/folder]`` on the hub.

    Raises AdapterError for what is neither, or can't be opened.
    """
    path = Path(text).expanduser()
    if _exists(path):
        if revision is not None:
            raise AdapterError(f"{text} is on this machine.", fix="Only the hub has a --revision.")
        return _Archive(text, path) if zipfile.is_zipfile(path) else _Local(text, path.resolve())
    match = _HUB_NAME.fullmatch(text)
    if match is None:
        raise AdapterError(
            f"{text!r} is no file or folder here, and no name on the hub.",
            fix="Give a folder, a .gguf or .zip file, or owner/name on the hub.",
        )
    return _Hub(text, match["repo"], match["inside"] or "", revision)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file
        return False


def _check_name(file: str, source: str) -> PurePosixPath:
    """The name as a path. Raises AdapterError for one that leads out of its folder."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file or "\0" in file:
        raise AdapterError(
            f"{source} holds a file called {file!r}, which leads out of its folder.",
            fix="Don't use it: no honest adapter has such names.",
        )
    return path


class _Local:
    """A folder, or a single file."""

    revision = ""
    inside = ""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._folder = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path

    def files(self) -> Mapping[PurePosixPath, int]:
        if self._only:
            return {PurePosixPath(self._only.name): self._only.stat().st_size}
        found = {}
        for path in sorted(self._folder.rglob("*")):
            if not path.is_symlink() and path.is_dir():
                continue
            if not _resolved(path).is_relative_to(self._folder):
                raise AdapterError(
                    f"{path} is a link that leads out of {self._folder}.",
                    fix="Where that is meant, copy the folder with cp -rL and import the copy.",
                )
            if path.is_file():
                found[PurePosixPath(path.relative_to(self._folder))] = path.stat().st_size
        return found

    def copy(self, file: PurePosixPath, into: Path, limit: int) -> None:
        with (self._folder / file).open("rb") as stream:
            _write(stream, into, limit, f"{self.name}: {file}")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise AdapterError(f"{path} can't be followed: {error}.") from error


class _Archive:
    """A zip file."""

    revision = ""
    inside = ""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._entries: dict[PurePosixPath, zipfile.ZipInfo] = {}

    def files(self) -> Mapping[PurePosixPath, int]:
        self._entries.clear()
        try:
            with zipfile.ZipFile(self._path) as archive:
                entries = archive.infolist()
        except _DAMAGED as error:
            raise AdapterError(f"{self.name} can't be unpacked: {error}.") from error
        for entry in entries:
            path = _check_name(entry.filename, self.name)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise AdapterError(
                    f"{self.name}: {path} is a link.", fix="Don't use it: adapters have none."
                )
            if not entry.is_dir():
                self._entries[path] = entry
        return {path: entry.file_size for path, entry in self._entries.items()}

    def copy(self, file: PurePosixPath, into: Path, limit: int) -> None:
        try:
            with (
                zipfile.ZipFile(self._path) as archive,
                archive.open(self._entries[file]) as stream,
            ):
                _write(stream, into, limit, f"{self.name}: {file}")
        except _DAMAGED as error:
            raise AdapterError(f"{self.name}: {file} can't be unpacked: {error}.") from error


class _Hub:
    """A model repository on the hub."""

    def __init__(self, name: str, repository: str, inside: str, revision: str | None) -> None:
        self.name = name
        self.inside = inside.strip("/")
        self._repository = repository
        self.revision, self._files = self._look_up(revision)

    def files(self) -> Mapping[PurePosixPath, int]:
        return self._files

    def _look_up(self, revision: str | None) -> tuple[str, dict[PurePosixPath, int]]:
        """The commit that ``revision`` means now, and its files."""
        from huggingface_hub import HfApi

        try:
            info = HfApi().model_info(
                self._repository, revision=revision, timeout=HUB_TIMEOUT_S, files_metadata=True
            )
        except Exception as error:  # the client's and its transport's errors share no base class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise AdapterError(
                f"The hub doesn't give {self._repository}: {reason}",
                fix="Check the name, the --revision and the network; a private repository needs "
                "HF_TOKEN. A folder or file on this machine works without the hub.",
            ) from error
        listed = {
            _check_name(file.rfilename, self.name): file.size or 0 for file in info.siblings or ()
        }
        return info.sha or revision or "", listed

    def copy(self, file: PurePosixPath, into: Path, limit: int) -> None:
        from huggingface_hub import hf_hub_download

        work = into.parent / ".hub"
        try:
            fetched = hf_hub_download(
                self._repository, str(file), revision=self.revision or None, local_dir=work
            )
        except Exception as error:  # as above
            raise AdapterError(
                f"The hub doesn't give {self._repository}/{file}: {error}", fix="Try again."
            ) from error
        try:
            with Path(fetched).open("rb") as stream:
                _write(stream, into, limit, f"{self.name}: {file}")
        finally:
            shutil.rmtree(work)


def _write(stream: IO[bytes], into: Path, limit: int, what: str) -> None:
    """Copy a stream; what it says about its own size isn't believed."""
    written = 0
    with into.open("xb") as target:
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise AdapterError(f"{what} is larger than {limit} bytes.", fix="It is no adapter.")
            target.write(chunk)
