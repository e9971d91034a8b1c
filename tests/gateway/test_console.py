"""The console's files as they are served; tests/e2e opens them in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from gateway.access.keyring import Keyring
from gateway.access.keys import Key, digest_of, new_secret
from gateway.app import create_app
from gateway.console import router

FILES = sorted(Path(router.__file__).with_name("static").iterdir())
MARKUP_SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\(|Function\("
)


@pytest.fixture
def caller(services):
    """A client of a gateway whose settings differ."""

    def make(keyring: Keyring | None = None, **settings) -> httpx.AsyncClient:
        changed = replace(
            services,
            settings=services.settings.model_copy(update=settings),
            keyring=keyring or services.keyring,
        )
        transport = httpx.ASGITransport(create_app(changed), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    return make


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_every_file_is_served_under_the_same_strict_policy(http, file):
    answer = await http.get(f"/console/{file.name}")
    assert answer.status_code == 200
    assert answer.content == file.read_bytes()
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await http.get(
        f"/console/{file.name}", headers={"if-none-match": answer.headers["etag"]}
    )
    assert again.status_code == 304


async def test_the_address_without_a_slash_leads_to_the_page(http):
    answer = await http.get("/console", follow_redirects=True)
    assert answer.url.path == "/console/"
    assert answer.headers["content-type"].startswith("text/html")
    assert (await http.head("/console/")).status_code == 200


async def test_what_is_no_file_of_the_console_isnt_served(http):
    for path in ("nothing.js", "../router.py", "%2e%2e/router.py", "..%2frouter.py"):
        answer = await http.get(f"/console/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"


def test_the_page_holds_no_script_or_style_of_its_own_and_names_no_other_host():
    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            given = dict(attrs)
            assert tag != "style"
            assert tag != "script" or "src" in given
            assert not [name for name in given if name == "style" or name.startswith("on")]
            for name in ("src", "href"):
                assert ":" not in given.get(name, "")
                assert not given.get(name, "").startswith("/")

    for file in FILES:
        text = file.read_text()
        others = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.\w+[^\s\"']*", text))
        assert others <= {"http://www.w3.org/2000/svg"}, file.name
        assert not MARKUP_SINKS.search(text), file.name
    Page().feed(next(file for file in FILES if file.suffix == ".html").read_text())


async def test_it_is_on_where_the_host_is_loopback_or_the_setting_says_so(caller):
    cases = [
        ("127.0.0.1", None, 200),
        ("localhost", None, 200),
        ("0.0.0.0", None, 404),
        ("0.0.0.0", True, 200),
        ("127.0.0.1", False, 404),
    ]
    for host, console, status in cases:
        for path in ("/console/", "/console/app.js"):
            answer = await caller(host=host, console=console).get(path)
            assert answer.status_code == status, (host, console)
            if status == 404:
                error = answer.json()["error"]
                assert error["code"] == "console_off"
                assert "console = true" in error["message"]


async def test_the_page_needs_no_key_and_what_it_calls_does(caller, tmp_path):
    digest = digest_of(new_secret("anna"))
    keyring = Keyring(tmp_path / "keys.toml", [Key(name="anna", sha256=digest)])
    visitor = caller(keyring)
    assert (await visitor.get("/console/")).status_code == 200
    for path in ("/v1/models", "/v1/memory", "/health"):
        assert (await visitor.get(path)).status_code == 401
