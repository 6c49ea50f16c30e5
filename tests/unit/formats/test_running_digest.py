"""A digest that is worked out beside the work that makes the bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest

from modelbuild.formats import running_digest
from modelbuild.formats.running_digest import RunningDigest


@pytest.fixture
def running() -> Iterator[RunningDigest]:
    running = RunningDigest()
    yield running
    running.close()


def test_pieces_give_the_digest_of_the_whole(running: RunningDigest) -> None:
    """More pieces than may wait, of all sizes, hashed in the order they came."""
    pieces = [bytes([number]) * (number * 999) for number in range(50)]

    for piece in pieces:
        running.update(memoryview(piece))

    assert "sha256:" + hashlib.sha256(b"".join(pieces)).hexdigest() == running.digest()


class _SlowHasher:
    """Hashes nothing before it is told to."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.threads: set[int] = set()
        self.pieces: list[bytes] = []

    def update(self, piece: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.may_go_on.wait(30)
        self.pieces.append(piece)

    def hexdigest(self) -> str:
        return b"".join(self.pieces).decode()


def test_caller_goes_on_while_a_piece_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pieces as may wait are taken at once; the digest waits for all of them."""
    slow = _SlowHasher()
    monkeypatch.setattr(running_digest.hashlib, "sha256", lambda: slow)
    running = RunningDigest()

    for piece in (b"a", b"b"):
        running.update(piece)

    assert [] == slow.pieces
    slow.may_go_on.set()
    assert "sha256:ab" == running.digest()
    assert threading.get_ident() not in slow.threads
    running.close()


def test_pieces_wait_in_bounded_number(running: RunningDigest) -> None:
    """However fast the pieces come, only a few are kept."""
    waiting = []
    for _ in range(100):
        running.update(b"x" * 100_000)
        waiting.append(len(running._waiting))

    assert max(waiting) <= 2


def test_closing_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error nobody wants the digest, so nobody waits for it."""
    slow = _SlowHasher()
    monkeypatch.setattr(running_digest.hashlib, "sha256", lambda: slow)
    running = RunningDigest()
    running.update(b"a")
    running.update(b"b")
    threading.Timer(0.05, slow.may_go_on.set).start()

    running.close()

    assert slow.pieces in ([], [b"a"])
