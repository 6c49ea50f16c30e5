"""Who may ask: Host, Origin, browser marks and token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelbuild.server.guard import Asker, Guard, browser_marks, parse_origins
from modelbuild.server.settings import ServerSettings

SETTINGS = ServerSettings(Path("store"), Path("cache"))
CURL = Asker("GET", "/api/tags", ("127.0.0.1:11434",), "", "", False, "", "")


def judge(settings: ServerSettings = SETTINGS, **changes: object) -> int:
    return Guard(settings).judge(replace(CURL, **changes)).status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:11434",
        "localhost:1",
        "LOCALHOST",
        "[::1]:11434",
        "0.0.0.0:11434",
        "192.168.1.1",
        "10.0.0.9:80",
        "foo.local",
        "a.b.internal",
        "x.localhost",
        "",
    ],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    """A Host header that strangers' DNS cannot own passes."""
    assert 0 == judge(hosts=(host,))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.com:11434",
        "8.8.8.8",
        "local",
        "localhost.evil.example",
        "a b",
        "user@localhost",
        "[::1",
        "localhost:99999999",
        "localhost:x",
        "127.0.0.1.evil.example",
        "2001:4860:4860::8888",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    """Any other Host is answered with 403, so DNS rebinding reaches nothing."""
    assert 403 == judge(hosts=(host,))


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost")])
def test_host_stands_exactly_once(hosts: tuple[str, ...]) -> None:
    """No Host header, or two, is refused."""
    assert 403 == judge(hosts=hosts)


def test_named_hosts_are_added() -> None:
    """--allow-host adds names; case does not matter."""
    assert 0 == judge(replace(SETTINGS, allow_hosts=("Build.Example",)), hosts=("build.example:8080",))


def test_host_is_not_checked_where_other_machines_may_ask() -> None:
    """A server that listens to other machines cannot know its names; the token guards it."""
    settings = replace(SETTINGS, host="0.0.0.0", token="secret")

    assert 0 == judge(settings, hosts=("models.example",), authorization="Bearer secret")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://localhost",
        "https://127.0.0.1",
        "http://0.0.0.0:8",
        "http://[::1]:9",
        "app://x",
        "file://",
        "tauri://localhost",
        "vscode-webview://abc",
        "vscode-file://abc",
    ],
)
def test_local_pages_may_ask_and_are_named(origin: str) -> None:
    """An allowed origin passes and is repeated in the CORS header."""
    verdict = Guard(SETTINGS).judge(replace(CURL, origin=origin, from_browser=True))

    assert (0, origin) == (verdict.status, verdict.origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://evil.example#localhost",
        "http://localhost:3000.evil.example",
        "chrome-extension://abc",
        "http://localhost@evil.example",
        "http://LOCALHOST",
    ],
)
def test_foreign_pages_are_refused_without_a_cors_header(origin: str) -> None:
    """Any other origin is answered with 403 and told nothing."""
    verdict = Guard(SETTINGS).judge(replace(CURL, origin=origin, from_browser=True))

    assert (403, "") == (verdict.status, verdict.origin)


@pytest.mark.parametrize(
    ("patterns", "origin", "status"),
    [
        ("https://*.example.com", "https://a.example.com", 0),
        ("https://*.example.com", "https://example.com.evil.net", 403),
        ("*", "https://anything.example", 0),
        ("chrome-extension://*", "chrome-extension://abc", 0),
        (" https://a.example , https://b.example", "https://b.example", 0),
    ],
)
def test_origin_patterns(patterns: str, origin: str, status: int) -> None:
    """OLLAMA_ORIGINS is a comma list in which a star stands for anything."""
    assert status == judge(replace(SETTINGS, allow_origins=parse_origins(patterns)), origin=origin)


def test_preflight() -> None:
    """OPTIONS is answered for allowed origins only."""
    assert 204 == judge(method="OPTIONS", origin="http://localhost:3000", from_browser=True)
    assert 403 == judge(method="OPTIONS", origin="https://evil.example", from_browser=True)


def test_cross_site_is_refused_even_for_reading() -> None:
    """A browser that says "cross-site" without an origin comes from a stranger's page."""
    assert 403 == judge(fetch_site="cross-site", from_browser=True)


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/api/create", "application/json", 0),
        ("/api/create", "application/json; charset=utf-8", 0),
        ("/api/create", "text/plain", 415),
        ("/api/create", "application/x-www-form-urlencoded", 415),
        ("/api/create", "application/octet-stream", 415),
        ("/api/create", "", 415),
        ("/api/blobs/sha256:0", "application/octet-stream", 0),
    ],
)
def test_a_browser_cannot_change_anything_by_a_simple_request(path: str, content_type: str, status: int) -> None:
    """State-changing requests of browsers need a type that no HTML form can send."""
    origin = "http://localhost:3000"

    assert status == judge(method="POST", path=path, origin=origin, from_browser=True, content_type=content_type)


def test_curl_may_use_any_content_type() -> None:
    """`curl -d` sends a form type; without a browser's headers that is fine."""
    assert 0 == judge(method="POST", path="/api/create", content_type="application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        ("Bearer wrong", 401),
        ("Bearer \udcff", 401),  # a byte that is no UTF-8, as the HTTP library gives it
        ("Basic secret", 401),
        ("Bearer secret", 0),
        ("bearer  secret", 0),
    ],
)
def test_token(header: str, status: int) -> None:
    """With a token, only its bearer is answered."""
    assert status == judge(replace(SETTINGS, token="secret"), authorization=header)


def test_health_needs_no_token() -> None:
    """A supervisor may look whether the server lives."""
    guard = Guard(replace(SETTINGS, token="secret"), {"/health"})

    assert [0, 401] == [guard.judge(replace(CURL, path=path)).status for path in ("/health", "/api/tags")]


def test_browser_marks() -> None:
    """Origin, Referer and Sec-Fetch-Site are sent by browsers only, Sec-Fetch-Mode by Node too."""
    assert [True, True, True, False, False] == [
        browser_marks([name]) for name in ("Origin", "referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "User-Agent")
    ]
