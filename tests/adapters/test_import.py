"""Imports are tried with real adapters, real archives, and a real HTTP hub."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from adapters.forms import read_base_shape, read_lora, write_lora
from adapters.imports import choosing, import_adapter, open_source
from adapters.imports.bringing import Imported
from gateway.cli import cli
from kiki.errors import AdapterError
from tests.kiki.test_assets import point_hub_at

SHIPPED = Path(choosing.__file__).parent.parent / "shipped"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
COMMIT = "c" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of adapters that is imported into."""
    return tmp_path / "adapters"


def bring(source: Path | str, folder: Path, name: str | None = None, **more: Any) -> Imported:
    more.setdefault("base", BASE)
    return import_adapter(open_source(str(source)), name=name, folder=folder, **more)


def copy_of(name: str, to: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / name, to))


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def files_of(adapter: str, under: str = "") -> dict[str, bytes]:
    return {f"{under}{path.name}": path.read_bytes() for path in (SHIPPED / adapter).iterdir()}


def test_an_adapter_from_a_folder_is_the_same_and_says_where_it_came_from(folder, tmp_path):
    theirs = copy_of("shell", tmp_path / "theirs")
    (theirs / "run.py").write_text("raise SystemExit('never run')")
    brought = bring(theirs, folder, "bash")

    assert brought.path == folder / "bash"
    names = {path.name for path in brought.path.iterdir()}
    assert names == {path.name for path in (SHIPPED / "shell").iterdir()} | {"source.json"}
    weights = brought.path / "adapter_model.safetensors"
    assert weights.read_bytes() == (SHIPPED / "shell" / weights.name).read_bytes()
    record = json.loads((brought.path / "source.json").read_text())
    assert record["files"][weights.name] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (record["source"], record["revision"], record["name"]) == (str(theirs), "", "bash")
    assert [path.name for path in folder.iterdir()] == ["bash"]


def test_an_adapter_in_a_zip_keeps_its_own_name(folder, tmp_path):
    archive = write_zip(tmp_path / "pack.zip", files_of("sql", "out/sql/"))
    assert bring(archive, folder).path == folder / "sql"
    assert read_lora(folder / "sql").base == BASE


def test_a_gguf_file_stays_one_file(folder, tmp_path, base_gguf):
    base = read_base_shape(base_gguf)
    write_lora(read_lora(SHIPPED / "shell"), "gguf", tmp_path / "Shell.gguf", base=base)
    brought = bring(tmp_path / "Shell.gguf", folder, base_gguf=base_gguf)
    assert brought.path == folder / "shell.gguf"
    assert {path.name for path in folder.iterdir()} == {"shell.gguf", "shell.source.json"}
    assert len(read_lora(brought.path).weights) == 120


def test_a_name_that_is_taken_is_replaced_only_by_force(folder):
    bring(SHIPPED / "shell", folder, "mine")
    with pytest.raises(AdapterError, match=r"an adapter 'mine' in .* already"):
        bring(SHIPPED / "sql", folder, "mine")
    bring(SHIPPED / "sql", folder, "mine", force=True)
    assert json.loads((folder / "mine" / "card.json").read_text())["domain"] == "sql"
    assert [path.name for path in folder.iterdir()] == ["mine"]


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden ones too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def sql_gguf(tmp_path: Path, base_gguf: Path) -> Path:
    out = tmp_path / "made" / "sql.gguf"
    write_lora(read_lora(SHIPPED / "sql"), "gguf", out, base=read_base_shape(base_gguf))
    return out


@pytest.mark.parametrize("old", ["folder", "gguf"])
@pytest.mark.parametrize("new", ["folder", "gguf"])
def test_a_replacement_that_fails_at_any_step_leaves_the_old_adapter(
    folder, sql_gguf, base_gguf, monkeypatch, old, new
):
    sources = {"folder": SHIPPED / "shell", "gguf": sql_gguf}
    bring(sources[old], folder, "mine", base_gguf=base_gguf)
    before, rename = content_of(folder), Path.rename
    moves = {"folder": 1, "gguf": 2}
    for failing in range(moves[old] + moves[new]):
        left = failing

        def rename_until(self: Path, target: Path) -> Path:
            nonlocal left
            if left == 0:
                left = -1
                raise OSError(28, "No space left on device")
            left -= 1
            return rename(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", rename_until)
            with pytest.raises(AdapterError, match=r"No space left on device.* is as it was"):
                bring(sources[new], folder, "mine", base_gguf=base_gguf, force=True)
        assert content_of(folder) == before
    brought = bring(sources[new], folder, "mine", base_gguf=base_gguf, force=True)
    names = {"folder": {"mine"}, "gguf": {"mine.gguf", "mine.source.json"}}
    assert {path.name for path in folder.iterdir()} == names[new]
    assert read_lora(brought.path, base=read_base_shape(base_gguf)).rank == 16


def test_what_cannot_be_moved_back_is_kept_and_named(folder, monkeypatch):
    bring(SHIPPED / "shell", folder, "mine")
    before, rename = content_of(folder / "mine"), Path.rename

    def rename_away_only(self: Path, target: Path) -> Path:
        if target == folder / "mine":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_away_only)
    with pytest.raises(AdapterError, match=r"lies in .*\.replaced-"):
        bring(SHIPPED / "sql", folder, "mine", force=True)
    (kept,) = folder.glob(".replaced-*/mine")
    assert content_of(kept) == before


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "base", "kiki-meta-x"])
def test_a_name_that_is_no_adapters_name_is_refused(name, folder):
    with pytest.raises(AdapterError, match=r"can't be an adapter's name|kiki's own models"):
        import_adapter(
            open_source(str(SHIPPED / "shell")), name=name or "-", folder=folder, base=BASE
        )
    assert not folder.exists()


def test_several_adapters_are_listed_with_how_to_name_one(folder):
    with pytest.raises(AdapterError, match=r"6 adapters: chat-fr, cpp, python.*/chat-fr$"):
        bring(SHIPPED, folder)


def test_an_adapter_for_another_base_is_refused_and_leaves_nothing(folder):
    with pytest.raises(AdapterError, match=r"trained for .*SmolLM2.*--base"):
        bring(SHIPPED / "shell", folder, base="Qwen/Qwen3.6-35B-A3B")
    assert list(folder.iterdir()) == []


def test_a_sick_adapter_is_refused_with_the_reason(folder, tmp_path):
    import numpy as np
    from safetensors.numpy import load_file, save_file

    sick = copy_of("shell", tmp_path / "sick")
    weights = load_file(sick / "adapter_model.safetensors")
    dead = {k: np.zeros_like(v) if "lora_B" in k else v for k, v in weights.items()}
    save_file(dead, sick / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="lora_B is all zeros in every module"):
        bring(sick, folder)
    assert list(folder.iterdir()) == []


def test_a_cut_off_adapter_is_refused(folder, tmp_path):
    cut = copy_of("shell", tmp_path / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(AdapterError):
        bring(cut, folder)
    assert list(folder.iterdir()) == []


def test_pickled_weights_are_refused_because_reading_them_runs_code(folder, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "adapter_model.bin").write_bytes(b"\x80\x04.")
    (theirs / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin, a pickle: reading one runs"):
        bring(theirs, folder)


def test_a_folder_without_a_config_is_refused(folder, tmp_path):
    theirs = copy_of("shell", tmp_path / "theirs")
    (theirs / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        bring(theirs, folder)


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, tmp_path):
    theirs = copy_of("shell", tmp_path / "theirs")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (theirs / "README.md").unlink()
    (theirs / "README.md").symlink_to(secret)
    with pytest.raises(AdapterError, match=r"README\.md is a link that leads out"):
        bring(theirs, folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../shell/card.json", "/etc/card.json", "a\\..\\b", "c:evil"])
def test_an_archive_with_names_that_lead_out_of_it_is_refused(name, folder, tmp_path):
    archive = write_zip(tmp_path / "evil.zip", files_of("shell", "shell/") | {name: b"x"})
    with pytest.raises(AdapterError, match="leads out of its folder"):
        bring(archive, folder)
    assert not folder.exists()


def test_an_archive_with_a_link_is_refused(folder, tmp_path):
    archive = write_zip(tmp_path / "evil.zip", files_of("shell", "shell/"))
    link = zipfile.ZipInfo("shell/LICENSE")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(AdapterError, match="is a link"):
        bring(archive, folder)


def test_a_file_that_is_larger_than_an_adapter_is_refused(folder, tmp_path, monkeypatch):
    files = files_of("shell") | {"README.md": b"0" * (choosing.MOST_TEXT + 1)}
    with pytest.raises(AdapterError, match=r"README\.md has 1048577 bytes"):
        bring(write_zip(tmp_path / "bomb.zip", files), folder)


def test_a_file_that_grows_beyond_what_it_said_is_stopped(folder, tmp_path, monkeypatch):
    source = open_source(str(SHIPPED / "shell"))
    monkeypatch.setattr(choosing, "MOST_WEIGHTS", 1000)
    honest = source.files
    lying = {path: min(size, 1000) for path, size in honest().items()}
    monkeypatch.setattr(source, "files", lambda: lying)
    with pytest.raises(AdapterError, match="larger than 1000 bytes"):
        import_adapter(source, name="shell", folder=folder, base=BASE)
    assert list(folder.iterdir()) == []


def test_what_is_neither_a_path_nor_a_name_on_the_hub_is_said():
    with pytest.raises(AdapterError, match="no file or folder here, and no name on the hub"):
        open_source("./nowhere")


PARTS = st.sampled_from(["a", "b", "adapters.safetensors", "adapter_config.json", "x.gguf"])


@given(
    paths=st.lists(st.lists(PARTS, min_size=1, max_size=4), max_size=8),
    inside=st.sampled_from(["", "a", "a/b", "z"]),
)
def test_whatever_a_source_lists_only_files_of_the_asked_folder_are_chosen(paths, inside):
    files = {PurePosixPath(*parts): 10 for parts in paths}
    try:
        choice = choosing.choose(files, inside, "src")
    except AdapterError:
        return
    assert choice.files
    for name, (path, _) in choice.files.items():
        assert path in files
        assert path.is_relative_to(inside)
        assert "/" not in name


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine with one repository, ``them/many``; the dict is what it holds."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            content = self._find()
            self.send_response(404 if content is None else 200)
            content = content or b"{}"
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def _find(self) -> bytes | None:
            path = self.path.split("?")[0]
            if path in ("/api/models/them/many", "/api/models/them/many/revision/v1"):
                listed = [{"rfilename": n, "size": len(c)} for n, c in files.items()]
                return json.dumps({"id": "them/many", "sha": COMMIT, "siblings": listed}).encode()
            prefix = f"/them/many/resolve/{COMMIT}/"
            return files.get(path.removeprefix(prefix)) if path.startswith(prefix) else None

        def log_message(self, format: str, *args: Any) -> None:
            """The test's output is not an access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    point_hub_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_adapter_comes_from_a_folder_of_a_hubs_repository_at_a_commit(hub, folder):
    hub |= files_of("shell", "adapters/shell/") | files_of("sql", "adapters/sql/")
    hub["model.safetensors"] = b"a base, which nobody asked for"
    source = open_source("them/many/adapters/shell", "v1")
    brought = import_adapter(source, name=None, folder=folder, base=BASE)
    assert (brought.name, brought.revision, brought.folder) == ("shell", COMMIT, "adapters/shell")
    assert read_lora(folder / "shell").rank == 16
    assert [path.name for path in folder.iterdir()] == ["shell"]
    assert not (folder / "shell" / ".hub").exists()


def test_a_repository_of_many_adapters_lists_them(hub, folder):
    hub |= files_of("shell", "shell/") | files_of("sql", "sql/")
    with pytest.raises(AdapterError, match=r"2 adapters: shell, sql.*them/many/shell"):
        bring("them/many", folder)


def test_a_wrong_folder_in_a_repository_names_the_near_one(hub, folder):
    hub |= files_of("shell", "shell/") | files_of("sql", "sql/")
    with pytest.raises(AdapterError, match="Did you mean shell"):
        bring("them/many/shel", folder)


def test_a_repository_that_is_not_there_is_named(hub):
    with pytest.raises(AdapterError, match="doesn't give them/none"):
        open_source("them/none")


def test_the_command_imports_and_says_so(tmp_path, folder):
    arguments = ["adapters", "import", str(SHIPPED / "cpp"), "--adapters", str(folder)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert done.output == f"cpp: from {SHIPPED / 'cpp'} to {folder / 'cpp'}\n"
    again = CliRunner().invoke(cli, [*arguments, "--force", "--json"])
    assert json.loads(again.output)["name"] == "cpp"


def test_the_command_needs_a_folder_to_import_into():
    done = CliRunner().invoke(cli, ["adapters", "import", str(SHIPPED / "cpp")])
    assert done.exit_code == 1
    assert "--adapters FOLDER" in str(done.exception)


@pytest.mark.parametrize("prefix", ["./shell/", "a//b/"])
def test_an_archive_may_write_its_paths_in_odd_ways(prefix, folder, tmp_path):
    archive = write_zip(tmp_path / "odd.zip", files_of("shell", prefix))
    assert bring(archive, folder, "mine").name == "mine"


@pytest.mark.parametrize("where", [0.02, 0.5, 0.999])
def test_a_damaged_archive_is_refused_with_its_name(where, folder, tmp_path):
    archive = write_zip(tmp_path / "torn.zip", files_of("shell", "shell/"))
    content = bytearray(archive.read_bytes())
    start = int(len(content) * where)
    content[start : start + 200] = b"\xa5" * min(200, len(content) - start)
    archive.write_bytes(content)
    with pytest.raises(AdapterError, match="torn"):
        bring(archive, folder)


def test_a_name_too_long_for_a_file_is_said_not_to_exist():
    with pytest.raises(AdapterError, match="no file or folder here"):
        open_source("x" * 300)
