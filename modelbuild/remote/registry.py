"""A client for the registry protocol (Docker Registry HTTP API v2, OCI distribution), as far as models need it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import httpx

from modelbuild.digest import Digest
from modelbuild.errors import InputError, RemoteError, printable
from modelbuild.formats.json_text import parse_json
from modelbuild.remote.address import Address, is_local, redirect_target, token_realm

_REDIRECTS = 5
#: Nothing is unpacked: digests are those of the bytes that are sent, and a few kilobytes could become gigabytes.
_HEADERS = {"Accept-Encoding": "identity"}
_TIMEOUT = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=10.0)
_TOKEN_LIMIT_BYTES = 64 << 10
#: Manifests are kilobytes; more would only fill our memory.
_MANIFEST_LIMIT_BYTES = 4 << 20
_ANSWER_SHOWN = 200

#: Gives the bytes of a blob from the start, each time it is called.
Content = Callable[[], Iterator[bytes]]


class Registry:
    """One repository's registry; remembers the token it was given. Close it, or use it as a context."""

    def __init__(self, address: Address, credentials: tuple[str, str] | None = None) -> None:
        """credentials: user name and password; sent to the registry itself only."""
        self._address = address
        self._auth = httpx.BasicAuth(*credentials) if credentials is not None else None
        self._token = ""
        # Proxies of the environment know nothing about this machine's own registry.
        self._client = httpx.Client(headers=_HEADERS, timeout=_TIMEOUT, trust_env=not is_local(address.host))

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def manifest(self, repository: str, tag: str, media_type: str) -> bytes:
        """The bytes of a manifest; RemoteError when there is none or it cannot be had."""
        headers = {"Accept": media_type}
        with self._open("GET", f"/v2/{repository}/manifests/{tag}", headers=headers) as response:
            self._expect(response, 200)
            return _read_limited(response, _MANIFEST_LIMIT_BYTES)

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Does the registry have a blob?"""
        with self._open("HEAD", f"/v2/{repository}/blobs/{digest}") as response:
            return response.status_code == 200

    @contextmanager
    def read_blob(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The bytes of a blob from an offset; gives the offset that the registry really starts at."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._open("GET", f"/v2/{repository}/blobs/{digest}", headers=headers) as response:
            self._expect(response, 200, 206)
            start = offset if response.status_code == 206 else 0
            yield start, response.iter_raw()

    def write_blob(
        self, repository: str, digest: Digest, size_bytes: int, content: Content, mount_from: str = ""
    ) -> None:
        """Send a blob. mount_from: a repository of the same registry that may have it already."""
        query = {"mount": digest, "from": mount_from} if mount_from else {}
        with self._open("POST", f"/v2/{repository}/blobs/uploads/", params=query) as response:
            self._expect(response, 201, 202)
            if response.status_code == 201:
                return
            place = response.headers.get("Location", "")
        target = self._url(redirect_target(self._address, f"{self._address.url}/", place))
        target = target.copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        with self._open("PUT", str(target), headers=headers, content=content) as response:
            self._expect(response, 201)

    def write_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> None:
        """Publish a manifest; its blobs must be there."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        path = f"/v2/{repository}/manifests/{tag}"
        with self._open("PUT", path, headers=headers, content=lambda: iter([data])) as response:
            self._expect(response, 200, 201)

    # -- one request -------------------------------------------------------------------------------------------------

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        content: Content | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer to a request, after a token was fetched and redirects were followed where that was asked."""
        url = path if path.startswith("http") else self._address.url + path
        has_token = False
        for _ in range(_REDIRECTS):
            request = self._request(method, url, headers or {}, params, content)
            try:
                response = self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                raise _unreachable(self._address, error) from error
            try:
                if response.status_code == 401 and not has_token:
                    has_token = True  # one that was fetched for this request; an older one may have run out
                    self._token = self._fetch_token(response.headers.get("WWW-Authenticate", ""))
                elif response.has_redirect_location and method in ("GET", "HEAD"):
                    target = redirect_target(self._address, url, response.headers["Location"])
                    url, params = str(self._url(target)), None
                else:
                    yield response
                    return
            except httpx.HTTPError as error:  # also while its body is read
                raise _unreachable(self._address, error) from error
            finally:
                response.close()
        raise RemoteError("REGISTRY", f"the registry {self._address.host} redirects without end")

    def _request(
        self, method: str, url: str, headers: dict[str, str], params: dict[str, str] | None, content: Content | None
    ) -> httpx.Request:
        body = None if content is None else content()
        request = self._client.build_request(method, url, headers=headers, params=params, content=body)
        if not url.startswith(f"{self._address.url}/"):
            return request  # blobs are often kept elsewhere; credentials stay here
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        elif self._auth is not None:
            request = next(self._auth.auth_flow(request))
        return request

    def _fetch_token(self, challenge: str) -> str:
        if not challenge.lower().startswith("bearer "):  # the name and password were sent, if there are any
            raise self._not_let_in()
        realm, query = token_realm(self._address, challenge)
        try:
            with self._client.stream("GET", self._url(realm), params=query, auth=self._auth) as response:
                self._expect(response, 200)
                answer = parse_json(_read_limited(response, _TOKEN_LIMIT_BYTES), path=self._address.host)
        except (httpx.HTTPError, InputError) as error:
            raise _unreachable(self._address, error) from error
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise RemoteError("REGISTRY", f"the registry {self._address.host} gave no token")
        return token

    def _url(self, text: str) -> httpx.URL:
        """An address that the registry names."""
        try:
            return httpx.URL(text)
        except httpx.InvalidURL as error:
            message = f"the registry {self._address.host} names an address that is none: {printable(text)}"
            raise RemoteError("REGISTRY", message) from error

    def _expect(self, response: httpx.Response, *statuses: int) -> None:
        if response.status_code in statuses:
            return
        if response.status_code == 401:
            raise self._not_let_in()
        if response.status_code == 404:
            raise RemoteError("REGISTRY", "file does not exist")
        try:
            shown = printable(_read_limited(response, 4096).decode("utf-8", "replace").strip(), _ANSWER_SHOWN)
        except (RemoteError, httpx.HTTPError):
            shown = ""
        raise RemoteError("REGISTRY", f"{self._address.host} answered {response.status_code}: {shown}".rstrip(": "))

    def _not_let_in(self) -> RemoteError:
        if self._auth is not None:
            return RemoteError("REGISTRY", f"the registry {self._address.host} refuses this user name or password")
        hint = "--username NAME says who asks; the password is asked for"
        return RemoteError(
            "REGISTRY", f"the registry {self._address.host} lets nobody in without a user name", hint=hint
        )


def _read_limited(response: httpx.Response, limit_bytes: int) -> bytes:
    parts, size = [], 0
    for part in response.iter_raw():
        size += len(part)
        if size > limit_bytes:
            raise RemoteError("REGISTRY", f"the answer has more than {limit_bytes:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _unreachable(address: Address, error: Exception) -> RemoteError:
    said = re.sub(r"^\[Errno [0-9]+\] ", "", str(error)) or type(error).__name__
    hint = "is the name of the registry right, and does it run?"
    return RemoteError("NETWORK", f"{address.host}: {said[:1].lower()}{said[1:]}", hint=hint)
