"""Debian's Chromium, and what the tests of a page share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def net_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Chromium writes down all that it does on the network; whole once it has ended."""
    return tmp_path_factory.mktemp("chromium") / "net-log.json"


@pytest.fixture(scope="module")
def browser(net_log: Path) -> Iterator[Browser]:
    """Headless, with a profile of its own."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is missing: scripts/debian-tools chromium")
    flags = [*FLAGS, f"--log-net-log={net_log}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()
