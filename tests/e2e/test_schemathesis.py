"""Requests made from /openapi.json by schemathesis, where it is installed: none makes the server fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.small_gguf import write_gguf
from tests.space import Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from tests.serving import start, stop

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed (extra `fuzz`)"
)
#: Requests that a program makes up never end /events, which has no end.
_OPTIONS = ["--exclude-path", "/events", "--max-examples", "10", "--request-timeout", "30", "--no-color"]


def test_no_server_error(space: Space) -> None:
    """Valid and invalid requests to every operation, with a model in the store, get no status from 500 on."""
    served = start(space)
    try:
        digest = served.upload(write_gguf())
        assert 200 == served.create(model="llama3.2", files={"m.gguf": digest}, stream=False).status
        command = "import sys, schemathesis.cli as cli; sys.argv[0] = 'schemathesis'; cli.schemathesis()"
        done = subprocess.run(
            [sys.executable, "-c", command, "run", f"{served.url}/openapi.json", "-c", "not_a_server_error", *_OPTIONS],
            cwd=space.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    finally:
        stop(served)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "generated" in done.stdout
