"""Far more clients than a server has room for; `benchmarks/connections.py` does the same with 10,000."""

from __future__ import annotations

import os
import resource

import pytest

from modelbuild.digest import digest_of
from tests.crowd import open_crowd, peak_mib
from tests.space import Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from tests.serving import start, stop

CROWD = 1500
#: Peak memory of the whole process; 41 MiB at rest, 54 MiB with 10,000 connections.
PEAK_MIB = 80


def test_a_crowd_is_answered_and_an_upload_goes_on(space: Space) -> None:
    """With few open files everybody is answered, an upload that was there before ends well, and memory is bounded."""
    data = os.urandom(1 << 20)
    digest = digest_of(data)
    served = start(space)
    try:
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (300, 300))
        with served.client.connect(60) as upload:
            head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            upload.sendall(head.encode() + data[:1000])

            answered = open_crowd(served.client.port, CROWD)

            upload.sendall(data[1000:])
            assert upload.recv(100).startswith(b"HTTP/1.1 201 ")
        assert {"200", "503"} >= set(answered), answered
        assert peak_mib(served.process.pid) < PEAK_MIB
        assert 200 == served.client.ask("HEAD", f"/api/blobs/{digest}").status
    finally:
        stop(served)
