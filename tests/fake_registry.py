"""A registry in a thread of the test: enough of the protocol to be pulled from and pushed to, and to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]*)")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)")


@dataclass(slots=True)
class FakeRegistry:
    """What it holds, what it was asked, and what it does wrong.

    ranges: the parts of blobs that were asked for, as clients wrote them. refuses_ranges: the status they are
    answered with. answers: status, body and headers that every GET is answered with.
    break_after: bytes of an answer after which the connection breaks, for the next `breaks` times.
    redirect: where blobs are redirected to. upload: where they are to be sent. realm: where tokens are to be had, and
    token: what stands there; when the realm is set, every request needs one. mounts: repositories that blobs may be
    mounted from. has_own_blobs: whether a repository finds the blobs that were sent to another.
    """

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    refuses_ranges: int = 0
    answers: tuple[int, bytes, dict[str, str]] | None = None
    authorizations: list[str] = field(default_factory=list)
    break_after: int = 0
    breaks: int = 0
    redirect: str = ""
    upload: str = ""
    realm: str = ""
    token: bytes = b'{"token":"t0ken"}'
    mounts: set[str] = field(default_factory=set)
    has_own_blobs: bool = True


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection; its server carries the registry."""

    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> FakeRegistry:
        return self.server.registry  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self) -> tuple[str, dict[str, str]]:
        path, _, query = self.path.partition("?")
        self.registry.requests.append(f"{self.command} {path}")
        self.registry.authorizations.append(self.headers.get("Authorization", ""))
        fields = dict(part.split("=", 1) for part in query.split("&") if part)
        return path, {key: value.replace("%3A", ":").replace("%2F", "/") for key, value in fields.items()}

    def _is_allowed(self, path: str) -> bool:
        if not self.registry.realm or path == "/token" or self.headers.get("Authorization") == "Bearer t0ken":
            return True
        self._send(401, WWW_Authenticate=f'Bearer realm="{self.registry.realm}",service="s",scope="x"')
        return False

    def do_GET(self) -> None:
        path, _ = self._begin()
        if not self._is_allowed(path):
            return
        if self.registry.answers is not None:
            status, body, headers = self.registry.answers
            self._send(status, body, **headers)
        elif path == "/token":
            self._send_whole(self.registry.token)
        elif match := _MANIFEST.fullmatch(path):
            data = self.registry.manifests.get(f"{match[1]}:{match[2]}")
            self._send(404, b"{}") if data is None else self._send_whole(data)
        elif match := _BLOB.fullmatch(path):
            self._send_blob(match[2])
        else:
            self._send(404)

    do_HEAD = do_GET  # noqa: N815

    def _send_blob(self, digest: str) -> None:
        data = self.registry.blobs.get(digest) if self.registry.has_own_blobs else None
        self.registry.ranges += [self.headers["Range"]] if "Range" in self.headers else []
        if data is None:
            self._send(404)
        elif self.registry.redirect:
            self._send(307, Location=self.registry.redirect)
        elif self.registry.refuses_ranges and "Range" in self.headers:
            self._send(self.registry.refuses_ranges)
        elif match := re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", "")):
            self._send(206, data[int(match[1]) :])
        else:
            self._send_whole(data)

    def _send_whole(self, data: bytes) -> None:
        if not self.registry.breaks or self.command != "GET" or len(data) <= self.registry.break_after:
            self._send(200, data)
            return
        self.registry.breaks -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.registry.break_after])
        self.close_connection = True

    def do_POST(self) -> None:
        path, query = self._begin()
        if not self._is_allowed(path):
            return
        if query.get("mount") in self.registry.blobs and query.get("from") in self.registry.mounts:
            self._send(201)
        else:
            self._send(202, Location=self.registry.upload or f"{path}7?state=abc")

    def do_PUT(self) -> None:
        path, query = self._begin()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if match := _MANIFEST.fullmatch(path):
            self.registry.manifests[f"{match[1]}:{match[2]}"] = body
            self._send(201)
        elif _UPLOAD.fullmatch(path) and query["digest"] == f"sha256:{hashlib.sha256(body).hexdigest()}":
            self.registry.blobs[query["digest"]] = body
            self._send(201)
        else:
            self._send(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away in the middle, as they do in tests."""


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """A registry that answers while the block runs."""
    registry = FakeRegistry()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.registry = registry  # type: ignore[attr-defined]
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
