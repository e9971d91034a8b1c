from __future__ import annotations

import pytest

from gateway.access.origin import check_local
from kiki.errors import ForbiddenError

PAGE = "https://chat.example.org"


def allowed(client: str | None = "127.0.0.1", host: str = "localhost:8000", **headers: str) -> bool:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    try:
        check_local(client, {"host": host} | named, [PAGE])
    except ForbiddenError:
        return False
    return True


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"])
def test_a_program_of_this_machine_may_call(host):
    assert allowed(host=host)
    assert allowed(client="::1", host=host)
    assert allowed(client="::ffff:127.0.0.1", host=host)


@pytest.mark.parametrize("client", ["10.0.0.7", "192.168.1.2", "fe80::1", "::ffff:10.0.0.7", None])
def test_another_machine_may_not(client):
    assert not allowed(client=client)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "0.0.0.0"]
)
def test_a_name_that_was_made_to_point_here_is_refused(host):
    assert not allowed(host=host)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "https://localhost:8000"]
)
def test_a_web_page_of_another_origin_may_not_call(origin):
    assert not allowed(origin=origin)


def test_a_page_of_the_gateway_itself_and_one_that_is_named_may():
    assert allowed(origin="http://localhost:8000", sec_fetch_site="same-origin")
    assert allowed(origin=PAGE, sec_fetch_site="cross-site")


def test_an_image_or_a_form_of_another_site_is_refused_though_it_names_no_origin():
    assert not allowed(sec_fetch_site="cross-site")
    assert allowed(sec_fetch_site="none")


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip"])
def test_what_a_proxy_passes_on_is_not_of_this_machine(header):
    assert not allowed(**{header: "127.0.0.1"})
