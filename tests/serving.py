"""A server in a thread of the test, with limits of the test's choice, or as a process; and a plain client for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.digest import digest_of
from modelbuild.server.run import serving
from modelbuild.server.settings import ServerSettings
from tests.space import Space


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def statuses(self) -> list[str]:
        return [str(line.get("status", line)) for line in self.lines]


class Client:
    """Talks to the server on a port of this machine."""

    def __init__(self, port: int, store: Path) -> None:
        self.port = port
        self.store = store

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            with suppress(BrokenPipeError, ConnectionResetError):  # answered before all of the body was read
                connection.request(method, path, body=data, headers=dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes, *, timeout_s: float = 30.0) -> bytes:
        """What comes back for these bytes until the server closes the connection."""
        with self.connect(timeout_s) as connection:
            connection.sendall(data)
            return read_all(connection)

    def connect(self, timeout_s: float = 30.0) -> socket.socket:
        """An open connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def files(self) -> set[str]:
        """Every file of the store, relative to it; directories may go meanwhile."""
        found = ((Path(place), name) for place, _, names in os.walk(self.store) for name in names)
        return {str((place / name).relative_to(self.store)) for place, name in found}


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the other side closes; a reset counts as closing."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@contextmanager
def running_server(settings: ServerSettings) -> Iterator[Client]:
    """A server while the block runs."""
    ready: list[int] = []
    started, loop, stopping = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        try:
            async with serving(settings) as port:
                ready.append(port)
                started.set()
                await stopping.wait()
        finally:
            started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(60)
    try:
        yield Client(ready[0], settings.store)
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
        loop.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs as a process."""

    process: subprocess.Popen[str]
    client: Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.client.port}"

    def create(self, **request: Any) -> Answer:
        return self.client.ask("POST", "/api/create", request)

    def upload(self, data: bytes) -> str:
        """Store a blob; returns its digest."""
        digest = digest_of(data)
        assert self.client.ask("POST", f"/api/blobs/{digest}", data).status in (200, 201)
        return digest


def start(space: Space, *options: str, env: dict[str, str] | None = None) -> Served:
    """`modelbuild serve` on a free port."""
    command = [sys.executable, "-m", "modelbuild", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=space.root, env=space.environment() | (env or {}), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("listening on http://"), line + process.stderr.read()
    return Served(process, Client(int(line.rpartition(":")[2]), space.store))


def stop(served: Served) -> int:
    """End it as a supervisor does; its status."""
    served.process.send_signal(signal.SIGTERM)
    status = served.process.wait(20)
    assert served.process.stderr is not None
    served.process.stderr.close()
    return status
