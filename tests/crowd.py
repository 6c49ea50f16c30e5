"""A crowd of clients that come at once and stay, and what a server process took for them."""

from __future__ import annotations

import resource
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

_REQUEST = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def open_crowd(port: int, count: int) -> Counter[str]:
    """How many of so many connections, all held until the last is answered, got which status; "lost" without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    try:
        with ExitStack() as held:
            visitors = [held.enter_context(_visit(port)) for _ in range(count)]
            return Counter(_status(visitor) for visitor in visitors)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def most_connections() -> int:
    """How many connections this process may hold."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _visit(port: int) -> socket.socket:
    """A connection over which a request has been sent, if the server had not enough of it before."""
    visitor = socket.create_connection(("127.0.0.1", port), 60)
    with suppress(OSError):
        visitor.sendall(_REQUEST)
    return visitor


def _status(visitor: socket.socket) -> str:
    try:
        return visitor.recv(100).decode("latin-1")[9:12] or "lost"
    except OSError:
        return "lost"
