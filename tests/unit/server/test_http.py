"""The server's behaviour on the wire: routes, limits, broken requests, slow clients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from aiohttp import StreamReader

from modelbuild.server.answers import Refusal
from modelbuild.server.bodies import iterate_body
from modelbuild.server.settings import Limits, ServerSettings
from tests.hasty_loop import run_at_once
from tests.serving import Client, read_all, running_server

LIMITS = Limits(head_timeout_s=0.4, body_idle_timeout_s=0.4, connections=20, shutdown_s=1.0, json_bytes=1 << 16)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place = tmp_path_factory.mktemp("server")
    with running_server(ServerSettings(place / "models", place / "cache", port=0, limits=LIMITS)) as client:
        yield client


def head(client: Client, *lines: str, path: str = "/api/version", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_greeting(client: Client) -> None:
    """GET and HEAD of / say what clients look for."""
    assert b"Ollama is running" == client.ask("GET", "/").body
    answer = client.ask("HEAD", "/")
    assert (200, "17", b"") == (answer.status, answer.headers["content-length"], answer.body)


def test_version(client: Client) -> None:
    """The version is three numbers."""
    answer = client.ask("GET", "/api/version")

    assert "application/json; charset=utf-8" == answer.headers["content-type"]
    assert 3 == len(answer.json["version"].split("."))


@pytest.mark.parametrize(
    ("method", "path", "expected", "header"),
    [
        ("POST", "/", 405, ("allow", "HEAD, GET")),
        ("PUT", "/api/copy", 405, ("allow", "POST")),
        ("GET", "/api/blobs/sha256:0", 405, ("allow", "HEAD, POST")),
        ("GET", "/api/version/", 301, ("location", "/api/version")),
        ("POST", "/api/copy/", 307, ("location", "/api/copy")),
        ("GET", "/api/nope", 404, ("content-type", "text/plain")),
        ("GET", "/api/blobs", 404, ("content-type", "text/plain")),
        ("PATCH", "/api/version/", 404, ("content-type", "text/plain")),
        ("GET", "/api/copy/", 404, ("content-type", "text/plain")),
        ("GET", "//api/tags", 301, ("location", "/api/tags")),
        ("POST", "/api/./x/../copy", 301, ("location", "/api/copy")),
        ("DELETE", "/../", 301, ("location", "/")),
    ],
)
def test_routing(client: Client, method: str, path: str, expected: int, header: tuple[str, str]) -> None:
    """Wrong methods, trailing slashes and unknown paths are answered as Ollama's router does."""
    answer = client.ask(method, path)

    assert (expected, header[1]) == (answer.status, answer.headers[header[0]])


PATHS = {"copy": "/api/copy", "delete": "/api/delete", "show": "/api/show", "generate": "/api/generate"}
PATHS |= {"pull": "/api/pull", "push": "/api/push"}
BODIES = json.loads((Path(__file__).parents[2] / "data" / "go_requests" / "bind.json").read_text("utf-8"))


@pytest.mark.parametrize("case", [case for case in BODIES if case["kind"] in PATHS and "error" in case])
def test_fields_of_a_wrong_type(client: Client, case: dict[str, str]) -> None:
    """Each request type is answered with Go's text for its fields (tests/data/go_requests/README.md)."""
    method = "DELETE" if case["kind"] == "delete" else "POST"
    answer = client.ask(method, PATHS[case["kind"]], case["body"].encode("latin-1"))

    assert (400, {"error": case["error"]}) == (answer.status, answer.json)


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/show", {"model": "  "}, 400, "model is required"),
        ("/api/show", {"model": "a:local"}, 404, "model 'a:latest' not found"),
        ("/api/show", {"model": "a:cloud"}, 403, "ollama cloud is disabled: remote model details are unavailable"),
        ("/api/show", {"model": "bad name:cloud"}, 400, "invalid model name"),
        ("/api/show", {"model": "a:local:cloud"}, 400, 'use either :local or :cloud, not both: "a:local:cloud"'),
        ("/api/generate", {"model": ""}, 404, "model '' not found"),
        ("/api/generate", {"model": "bad name"}, 400, "invalid model name"),
        ("/api/generate", {"model": "a:local"}, 404, "model 'a:local' not found"),
        ("/api/generate", {"model": "a:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ("/api/delete", {"model": "  "}, 400, "model is required"),
        ("/api/copy", {"source": "a", "destination": "b"}, 404, 'model "a" not found'),
    ],
)
def test_references_that_name_no_model(client: Client, path: str, body: dict[str, str], status: int, text: str) -> None:
    """Each request words it as Ollama does."""
    answer = client.ask("DELETE" if path.endswith("delete") else "POST", path, body)

    assert (status, {"error": text}) == (answer.status, answer.json)


def test_a_copy_onto_itself_is_done_at_once(client: Client) -> None:
    """Even of a model that does not exist, as in Ollama."""
    assert 200 == client.ask("POST", "/api/copy", {"source": "a", "destination": "a:latest"}).status


def test_a_refused_page_gets_an_empty_answer(client: Client) -> None:
    """A foreign origin learns nothing, not even CORS headers."""
    answer = client.ask("GET", "/api/version", headers={"Origin": "http://evil.example"})

    assert (403, b"", False) == (answer.status, answer.body, "access-control-allow-origin" in answer.headers)


def test_an_allowed_page_is_named_in_every_answer(client: Client) -> None:
    """Errors carry the CORS header too, so that a page can show them."""
    answer = client.ask("GET", "/api/nope", headers={"Origin": "http://localhost:3000"})

    assert "http://localhost:3000" == answer.headers["access-control-allow-origin"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Host: localhost", "X-Long: " + "x" * 33_000], 431),
        (["Host: localhost", *(f"X-{i}: {'y' * 1000}" for i in range(60))], 431),
        (["Host: localhost", *(f"X-{i}: 1" for i in range(150))], 431),
        (["Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Host: localhost", "Content-Length: 5", "Content-Length: 6"], 400),
        (["Host: localhost", "Content-Length: -1"], 400),
        (["Host: localhost", "Content-Encoding: gzip"], 415),
        (["Host: localhost", "bad header"], 400),
        ([], 400),
        (["Host: evil.example"], 403),
        (["Host: localhost", "Host: localhost"], 400),
    ],
)
def test_broken_heads(client: Client, lines: list[str], expected: int) -> None:
    """Heads that are too large, contradict themselves or name nobody get the documented status."""
    assert expected == status(client.raw(head(client, *lines)))


@pytest.mark.parametrize("chunk", [b"-1\r\n", b"0x10\r\n", b"10000000000000000\r\n", b"zz\r\n"])
def test_chunk_sizes_that_lie(client: Client, chunk: bytes) -> None:
    """A chunk size that is no number of bytes ends the request with 400 and leaves nothing."""
    before = client.files()
    request = head(
        client, "Host: localhost", "Transfer-Encoding: chunked", path=f"/api/blobs/sha256:{'0' * 64}", method="POST"
    )

    assert 400 == status(client.raw(request + chunk + b"data\r\n0\r\n\r\n"))
    assert before == client.files()


def test_a_slow_head_is_cut_off(client: Client) -> None:
    """A client that sends one byte at a time is closed when its time is up, also on a connection that was used."""
    for first in (b"", head(client, "Host: localhost").replace(b"Connection: close\r\n", b"")):
        with client.connect() as connection:
            if first:
                connection.sendall(first)
                assert b"200" in connection.recv(1000)
            connection.sendall(b"GET / HT")
            assert b"" == read_all(connection)


def test_a_body_that_stops_is_answered_and_leaves_nothing(client: Client) -> None:
    """A pause that is too long ends an upload with 408."""
    before = client.files()
    request = head(
        client, "Host: localhost", "Content-Length: 100", path=f"/api/blobs/sha256:{'0' * 64}", method="POST"
    )

    assert 408 == status(client.raw(request + b"only this"))
    assert before == client.files()


def test_a_body_may_take_long_as_long_as_it_comes() -> None:
    """Pauses count one by one: a body that takes longer than any pause may is taken."""

    async def take() -> bytes:
        content = StreamReader(mock.Mock(connected=True), 1 << 16, loop=asyncio.get_running_loop())

        async def send() -> None:
            for part in (b"slow", b" and", b" steady"):
                await asyncio.sleep(0.9 * LIMITS.body_idle_timeout_s)
                content.feed_data(part)
            content.feed_eof()

        sending = asyncio.create_task(send())
        taken = [part async for part in iterate_body(mock.Mock(content=content, headers={}), LIMITS)]
        await sending
        return b"".join(taken)

    assert b"slow and steady" == run_at_once(take())


def test_our_own_time_is_no_pause() -> None:
    """Only waiting for a part counts, not what is done with it; the wait ends when its own time is up."""

    async def take() -> list[str]:
        content = StreamReader(mock.Mock(connected=True), 1 << 16, loop=asyncio.get_running_loop())
        request = mock.Mock(content=content, headers={})
        taken = []
        content.feed_data(b"first")
        content.feed_data(b"second")
        try:
            async for part in iterate_body(request, replace(LIMITS, body_idle_timeout_s=0.1)):
                await asyncio.sleep(0.25)
                taken.append(part.decode())
        except Refusal as refusal:
            taken.append(str(refusal.status))
        return taken

    assert ["first", "second", "408"] == run_at_once(take())


def test_large_json_is_refused(client: Client) -> None:
    """A JSON body beyond the limit is not read to its end, whether it says its size or not."""
    assert 413 == client.ask("POST", "/api/copy", b"x" * (LIMITS.json_bytes + 1)).status
    image = head(client, "Host: localhost", f"Content-Length: {65 << 20}", path="/api/create", method="POST")
    assert 413 == status(client.raw(image))
    request = head(client, "Host: localhost", "Transfer-Encoding: chunked", path="/api/copy", method="POST")
    assert 413 == status(client.raw(request + b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n"))


def test_too_many_connections(tmp_path: Path) -> None:
    """One connection more than allowed is told to come back; the others still work."""
    limits = replace(LIMITS, head_timeout_s=60)
    greeting = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running_server(ServerSettings(tmp_path / "m", tmp_path / "c", port=0, limits=limits)) as client:
        held = [client.connect() for _ in range(limits.connections)]
        try:
            for connection in held:  # each answers, so the server has taken them all
                connection.sendall(greeting)
                assert b"Ollama is running" in connection.recv(1000)
            answer = client.raw(head(client, "Host: localhost"))
            assert 503 == status(answer)
            assert b'{"error":"too many connections"}' == answer.split(b"\r\n\r\n", 1)[1]
            held[0].sendall(greeting)
            assert b"Ollama is running" in held[0].recv(1000)
        finally:
            for connection in held:
                connection.close()


def test_many_connections_are_all_answered(tmp_path: Path) -> None:
    """A crowd far beyond the limit gets answers, 200 or 503, and nothing is lost."""
    limits = replace(LIMITS, connections=8)
    with running_server(ServerSettings(tmp_path / "m", tmp_path / "c", port=0, limits=limits)) as client:
        found: list[int] = []
        request = head(client, "Host: localhost")
        threads = [threading.Thread(target=lambda: found.append(status(client.raw(request)))) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 60 == len(found)
    assert {200, 503} >= set(found)


def test_an_error_of_ours_says_nothing_about_the_inside(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is answered with 500 and a text without paths or tracebacks."""
    monkeypatch.setattr("modelbuild.server.app.text_answer", lambda *_: 1 / 0)

    answer = client.ask("GET", "/")

    assert (500, "internal error") == (answer.status, answer.error)


def test_a_client_that_leaves_before_its_answer_is_no_error(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing to who is gone fails, and the log does not fill with that."""

    def leave(*_: object) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr("modelbuild.server.app.text_answer", leave)

    assert 499 == client.ask("GET", "/").status
    assert [] == [record for record in caplog.records if record.exc_info]
