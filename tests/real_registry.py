"""Debian's docker-registry, as a process of the test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = shutil.which("docker-registry") or shutil.which("registry")
_CONFIG = """\
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: DIRECTORY}, delete: {enabled: true}}
http: {addr: "127.0.0.1:PORT"}
"""


@contextmanager
def running_registry(place: Path) -> Iterator[str]:
    """host:port of a registry that keeps its files in `place` while the block runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config = place / "config.yml"
    config.write_text(_CONFIG.replace("DIRECTORY", str(place / "data")).replace("PORT", str(port)))
    process = subprocess.Popen([str(PROGRAM), "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
