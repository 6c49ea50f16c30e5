"""Who may ask: decided from the headers alone, before anything else is looked at. Pure.

A web page in the user's browser can send requests to a server on this machine. Three things keep it out: its Origin is
not in the list; a name it controls (DNS rebinding) is not an allowed Host; and a browser's state-changing request needs
a content type that forces a preflight. Host and Origin rules are those of Ollama (OLLAMA_ORIGINS), August 2026.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Collection, Iterable, Sequence

from modelbuild.late_pattern import late_pattern
from modelbuild.records import record
from modelbuild.server.settings import ServerSettings

_LOCAL_ORIGIN = late_pattern(r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:[0-9]{1,5})?", re.ASCII)
#: Schemes of desktop applications: they hold no pages of strangers.
_APPLICATION_SCHEMES = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_HOST = late_pattern(
    r"(?P<name>[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\])(:(?P<port>[0-9]{0,5}))?", re.ASCII
)
#: Sec-Fetch-Mode is not among them: Node's own fetch sends it, and every browser sends one of these beside it.
_BROWSER_HEADERS = ("origin", "referer", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user")
_JSON_TYPE, _BYTES_TYPE = "application/json", "application/octet-stream"

ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
PREFLIGHT_MAX_AGE_S = 43200
ALLOWED_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,"
    "x-stainless-lang,x-stainless-package-version,x-stainless-os,x-stainless-arch,x-stainless-retry-count,"
    "x-stainless-runtime,x-stainless-runtime-version,x-stainless-async,x-stainless-helper-method,"
    "x-stainless-poll-helper,x-stainless-custom-poll-interval,x-stainless-timeout"
)


@record
class Asker:
    """What the headers of a request say about who sent it; header values that are absent are empty.

    hosts: every Host header. from_browser: a header that only browsers send is there.
    """

    method: str
    path: str
    hosts: Sequence[str]
    origin: str
    fetch_site: str
    from_browser: bool
    content_type: str
    authorization: str


@record
class Verdict:
    """status: 0 lets the request pass, else it is answered with this. origin: to be named in the CORS header."""

    status: int = 0
    origin: str = ""
    error: str = ""


class Guard:
    """The rules of one server."""

    def __init__(self, settings: ServerSettings, public_paths: Collection[str] = ()) -> None:
        """public_paths: those that are answered without a token."""
        self._public_paths = public_paths
        self._token = settings.token
        self._origins = settings.allow_origins
        self._checks_host = is_loopback(settings.host)
        self._hosts = {name.lower() for name in (*settings.allow_hosts, socket.gethostname()) if name}

    def judge(self, asker: Asker) -> Verdict:
        """Whether a request may pass, and what it is answered with if not."""
        if asker.origin and not self.allows_origin(asker.origin):
            return Verdict(403)
        if self._checks_host and not self.allows_host(asker.hosts):
            return Verdict(403)
        if asker.method == "OPTIONS" and asker.origin:
            return Verdict(204, asker.origin)
        if asker.fetch_site == "cross-site" and not asker.origin:
            return Verdict(403)
        if not self._knows_token(asker):
            return Verdict(401, asker.origin, "a bearer token is required")
        if asker.from_browser and _changes_state(asker.method) and not _forces_preflight(asker):
            wanted = f"{_JSON_TYPE} (or {_BYTES_TYPE} for a blob)"
            return Verdict(415, asker.origin, f"a browser must send this as {wanted}")
        return Verdict(0, asker.origin)

    def allows_origin(self, origin: str) -> bool:
        """Is a page of this origin one that may talk to us?"""
        if _LOCAL_ORIGIN.fullmatch(origin) or origin.startswith(_APPLICATION_SCHEMES):
            return True
        return any(_matches(pattern, origin) for pattern in self._origins)

    def allows_host(self, hosts: Sequence[str]) -> bool:
        """Does the Host header name this machine and nothing that a stranger's DNS could point at it?"""
        if len(hosts) != 1:
            return False
        match = _HOST.fullmatch(hosts[0])
        if match is None:
            return False
        name = match["name"].lower()
        if name in ("", "localhost") or name in self._hosts or name.endswith(_LOCAL_SUFFIXES):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or address.is_private or address.is_unspecified

    def _knows_token(self, asker: Asker) -> bool:
        if not self._token or asker.path in self._public_paths:
            return True
        scheme, _, given = asker.authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._token.encode()
        )


def is_loopback(host: str) -> bool:
    """Can this address be reached from this machine only?"""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_origins(text: str) -> tuple[str, ...]:
    """The patterns of OLLAMA_ORIGINS: a comma list, `*` stands for anything."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def browser_marks(names: Iterable[str]) -> bool:
    """Is there a header that only browsers send?"""
    return any(name.lower() in _BROWSER_HEADERS for name in names)


def _matches(pattern: str, origin: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == origin
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)


def _changes_state(method: str) -> bool:
    return method not in ("GET", "HEAD", "OPTIONS")


def _forces_preflight(asker: Asker) -> bool:
    kind = asker.content_type.partition(";")[0].strip().lower()
    return kind == _JSON_TYPE or (kind == _BYTES_TYPE and asker.path.startswith("/api/blobs/"))
