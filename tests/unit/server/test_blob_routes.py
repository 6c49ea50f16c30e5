"""Uploads: hashed on the way, whole or not at all."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.server.blobs import Receiver
from modelbuild.server.settings import Limits, ServerSettings
from tests.serving import Answer, Client, running_server

LIMITS = Limits(blob_bytes=8 << 20, shutdown_s=1.0)
DATA = os.urandom(3_000_000)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running_server(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0, limits=LIMITS)) as client:
        yield client


def blob(client: Client, digest: str) -> Path:
    return client.store / "blobs" / digest.replace(":", "-")


def wait_until(condition: object, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def start_upload(client: Client, digest: str, size: int, part: bytes, fields: str = "") -> socket.socket:
    """An upload that has sent only a part of its body."""
    connection = client.connect()
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n{fields}\r\n"
    connection.sendall(head.encode() + part)
    return connection


def test_upload_then_again(client: Client) -> None:
    """A new blob is 201, a known one 200 whatever the body says, and HEAD finds it in both spellings."""
    digest = digest_of(DATA)

    assert 404 == client.ask("HEAD", f"/api/blobs/{digest}").status
    assert 201 == client.ask("POST", f"/api/blobs/{digest}", DATA).status
    assert DATA == blob(client, digest).read_bytes()
    assert 200 == client.ask("POST", f"/api/blobs/{digest}", DATA).status
    assert 200 == client.ask("POST", f"/api/blobs/{digest}", b"something else").status
    assert [200, 200] == [
        client.ask("HEAD", f"/api/blobs/{text}").status for text in (digest, digest.replace(":", "-"))
    ]
    assert {f"blobs/{digest.replace(':', '-')}"} == client.files()


def test_chunked_upload(client: Client) -> None:
    """A body without a length is taken as it comes."""
    digest = digest_of(b"hello blob")
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"

    answer = client.raw(head.encode() + b"Connection: close\r\n\r\n5\r\nhello\r\n5\r\n blob\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 201 ")


def test_spellings_of_a_digest(client: Client) -> None:
    """A stored blob is found with a dash and percent-encoded; upper case names no blob, as in Ollama."""
    digest = digest_of(DATA)
    upper = f"/api/blobs/sha256:{digest[7:].upper()}"

    assert 201 == client.ask("POST", f"/api/blobs/sha256%3A{digest[7:]}", DATA).status
    assert 200 == client.ask("POST", f"/api/blobs/sha256-{digest[7:]}", DATA).status
    assert 200 == client.ask("HEAD", f"/api/blobs/sha256-{digest[7:]}").status
    assert 404 == client.ask("HEAD", upper).status
    assert "digest mismatch" in client.ask("POST", upper, DATA).json["error"]


def test_a_new_blob_is_taken_under_one_spelling_only(client: Client) -> None:
    """Under a digest with a dash the content is a mismatch, as in Ollama, which compares texts."""
    digest = digest_of(DATA)

    answer = client.ask("POST", f"/api/blobs/sha256-{digest[7:]}", DATA)

    assert (400, f'digest mismatch, expected "sha256-{digest[7:]}", got "{digest}"') == (
        answer.status, answer.json["error"]
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "sha256:abc",
        f"sha512:{'0' * 64}",
        f"sha256:{'0' * 65}",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e",
        f"sha256:{'0' * 64}%0a",
        f"sha256:{'%EF%BC%90' * 64}",
        f"sha256:{'0' * 62}..",
        "%00",
    ],
)
def test_what_is_no_digest(client: Client, text: str) -> None:
    """Anything else is refused before a path is made of it."""
    answers = [client.ask(method, f"/api/blobs/{text}", b"x") for method in ("HEAD", "POST")]

    assert [400, 400] == [answer.status for answer in answers]
    assert "invalid digest format" == answers[1].error
    assert set() == client.files()


def test_mismatch_leaves_nothing(client: Client) -> None:
    """A body with another digest is refused by name, and stays nowhere."""
    wanted, found = f"sha256:{'0' * 64}", digest_of(DATA)

    answer = client.ask("POST", f"/api/blobs/{wanted}", DATA)

    assert (400, f'digest mismatch, expected "{wanted}", got "{found}"') == (answer.status, answer.error)
    assert set() == client.files()


def test_mismatch_in_ollamas_way(tmp_path: Path) -> None:
    """With --rewrite-gguf a body with another digest is refused as well, and kept under its own."""
    found = digest_of(DATA)
    settings = ServerSettings(tmp_path / "m", tmp_path / "c", port=0, rewrite_gguf=True)
    with running_server(settings) as client:
        assert 400 == client.ask("POST", f"/api/blobs/sha256:{'0' * 64}", DATA).status
        assert 200 == client.ask("HEAD", f"/api/blobs/{found}").status
        assert {f"blobs/{found.replace(':', '-')}"} == client.files()


def test_a_cut_upload_leaves_nothing(client: Client) -> None:
    """When the client goes away half way, the staged file goes too."""
    connection = start_upload(client, digest_of(DATA), len(DATA), DATA[: len(DATA) // 2])
    wait_until(lambda: client.files())

    connection.close()

    wait_until(lambda: not client.files())


def part(client: Client, data: bytes, offset: int, body: bytes, **headers: str) -> Answer:
    """The answer to a part of a blob; `headers` with `_` for `-`."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return client.ask("POST", f"/api/blobs/{digest_of(data)}", body, {"Upload-Offset": str(offset), **named})


def test_a_cut_upload_is_continued(client: Client) -> None:
    """Who names an offset finds what has arrived after a cut, goes on from there, and sends no byte twice."""
    digest = digest_of(DATA)
    connection = start_upload(client, digest, len(DATA), DATA[:1_000_000], "Upload-Offset: 0\r\n")
    wait_until(lambda: client.files())
    wait_until(lambda: client.ask("HEAD", f"/api/blobs/{digest}").headers.get("upload-offset") == "1000000")
    assert 409 == part(client, DATA, 1_000_000, b"x").status  # the first one is still connected
    connection.close()
    wait_until(lambda: "upload-offset" in part(client, DATA, 5, b"x").headers)

    there = client.ask("HEAD", f"/api/blobs/{digest}")
    assert (404, "1000000", "?0") == (
        there.status, there.headers["upload-offset"], there.headers["upload-complete"]
    )  # fmt: skip
    assert "1000000" == part(client, DATA, 7, b"x").headers["upload-offset"]
    assert 201 == part(client, DATA, 1_000_000, DATA[1_000_000:]).status
    assert DATA == blob(client, digest).read_bytes()
    assert {f"blobs/{digest.replace(':', '-')}"} == client.files()


def test_an_upload_in_parts(client: Client) -> None:
    """Parts that say that more will come are 202 with the next offset; offset 0 begins anew."""
    assert 202 == part(client, DATA, 0, b"wrong", Upload_Complete="?0").status
    first = part(client, DATA, 0, DATA[:10], Upload_Complete="?0")
    assert (202, "10") == (first.status, first.headers["upload-offset"])
    assert 202 == part(client, DATA, 10, DATA[10:99], Upload_Complete="?0").status
    assert 201 == part(client, DATA, 99, DATA[99:], Upload_Complete="?1").status
    assert DATA == blob(client, digest_of(DATA)).read_bytes()


def test_wrong_parts_leave_nothing(client: Client) -> None:
    """When the whole has another digest, or becomes too large, what was kept goes too."""
    part(client, DATA, 0, b"wrong", Upload_Complete="?0")
    assert 400 == part(client, DATA, 5, DATA).status
    assert set() == client.files()
    part(client, DATA, 0, bytes(LIMITS.blob_bytes), Upload_Complete="?0")
    assert 413 == part(client, DATA, LIMITS.blob_bytes, b"x").status
    assert set() == client.files()


@pytest.mark.parametrize("text", ["-1", "x", "", "1e3", "9" * 19, "\xb2"])
def test_what_is_no_offset(client: Client, text: str) -> None:
    """It is refused before anything is staged."""
    answer = client.ask("POST", f"/api/blobs/{digest_of(DATA)}", b"x", {"Upload-Offset": text})

    assert (400, set()) == (answer.status, client.files())


def test_less_than_promised(client: Client) -> None:
    """A body that ends before its Content-Length is not stored, even if the bytes so far have the digest."""
    connection = start_upload(client, digest_of(b"part"), 100, b"part")
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1000)
    connection.close()

    wait_until(lambda: not client.files())
    assert 404 == client.ask("HEAD", f"/api/blobs/{digest_of(b'part')}").status


def test_too_large(client: Client) -> None:
    """A body beyond the limit is refused, at once when it says so, else when it gets there."""
    size = LIMITS.blob_bytes + 1
    with start_upload(client, digest_of(b""), size, b"") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    head = f"POST /api/blobs/{digest_of(b'')} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with client.connect() as connection:
        connection.sendall(head.encode())
        answer = send_until_answered(connection, b"100000\r\n" + bytes(1 << 20) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert set() == client.files()


def send_until_answered(connection: socket.socket, chunk: bytes) -> bytes:
    try:
        for _ in range(64):
            connection.sendall(chunk)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return connection.recv(1000)


def test_eight_at_once(client: Client) -> None:
    """Eight uploads of one digest all succeed and make one blob."""
    digest, found = digest_of(DATA), []
    threads = [
        threading.Thread(target=lambda: found.append(client.ask("POST", f"/api/blobs/{digest}", DATA).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(found)
    assert {200, 201} >= set(found)
    assert {f"blobs/{digest.replace(':', '-')}"} == client.files()


def test_full_disk(tmp_path: Path) -> None:
    """Where the disk would become too full, nothing is taken."""
    limits = Limits(spare_disk_bytes=1 << 60)
    with running_server(ServerSettings(tmp_path / "m", tmp_path / "c", port=0, limits=limits)) as client:
        answer = client.ask("POST", f"/api/blobs/{digest_of(DATA)}", DATA)

        assert (507, set()) == (answer.status, client.files())
        assert str(tmp_path) not in answer.error


def test_a_waiting_client_is_invited_only_for_new_blobs(client: Client) -> None:
    """`Expect: 100-continue` saves a client from sending what is there already."""
    digest = digest_of(b"abc")
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with client.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 ")
    with client.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_large_known_blob_is_answered_while_it_is_sent(client: Client) -> None:
    """A client that sends a known blob without asking reads its 200 although the body is not read to its end."""
    digest = digest_of(DATA)
    client.ask("POST", f"/api/blobs/{digest}", DATA)
    size = 64 << 20
    with start_upload(client, digest, size, b"") as connection:
        answer = send_until_answered(connection, bytes(1 << 20))

    assert answer.startswith(b"HTTP/1.1 200 ")


class StubFile:
    """A staged file that takes as long as it is told, on a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.write_s = 0.0001
        self.data = b""
        self.waits = 0
        self.is_disk = True

    def append(self, part: bytes) -> None:
        self.now_s += self.write_s
        self.waits += self.is_disk
        self.data += part


def test_a_slow_disk_is_waited_for_in_a_thread() -> None:
    """After a write that took long the next ones go to a thread, until they are fast again for a while."""
    file = StubFile()
    receiver = Receiver(file, lambda: file.now_s, lambda: file.waits)  # type: ignore[arg-type]

    receiver.take(b"a")
    assert not receiver.is_slow
    file.write_s = 0.2
    receiver.take(b"b")
    assert receiver.is_slow
    file.write_s = 0.0001
    for _ in range(15):
        receiver.take(b"c")
    assert receiver.is_slow
    receiver.take(b"d")
    assert not receiver.is_slow
    assert (file.data, digest_of(file.data)) == (b"ab" + b"c" * 15 + b"d", receiver.digest)


def test_a_busy_processor_is_no_slow_disk() -> None:
    """A write that took long because others had the processor needs no thread, which would cost more of it."""
    file = StubFile()
    file.is_disk, file.write_s = False, 0.2
    receiver = Receiver(file, lambda: file.now_s, lambda: file.waits)  # type: ignore[arg-type]

    receiver.take(b"a")

    assert not receiver.is_slow


def test_an_upload_to_a_slow_disk_is_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread writes is the same."""
    monkeypatch.setattr(Receiver, "is_slow", True)

    assert 201 == client.ask("POST", f"/api/blobs/{digest_of(DATA)}", DATA).status
    assert DATA == blob(client, digest_of(DATA)).read_bytes()
