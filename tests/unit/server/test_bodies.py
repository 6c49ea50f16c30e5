"""Bodies of requests are held once, however they arrive."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from modelbuild.server import bodies
from modelbuild.server.settings import Limits

COUNT = 100_000


def test_a_body_in_tiny_chunks_takes_no_more_than_one_in_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object for each chunk of two bytes would be twenty times as large as the body."""

    async def iterate(request: object, limits: Limits) -> AsyncIterator[bytes]:
        del request, limits
        for number in range(COUNT):
            yield number.to_bytes(2, "little", signed=False) if number < 1 << 16 else b"ab"

    monkeypatch.setattr(bodies, "iterate_body", iterate)
    request = cast("web.BaseRequest", SimpleNamespace(content_length=None))

    tracemalloc.start()
    body = asyncio.run(bodies.read_body(request, Limits()))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 2 * COUNT == len(body)
    assert peak_bytes < 8 * len(body)
