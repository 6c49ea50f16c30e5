"""How a server is run: addresses, directories, who may ask, and every limit with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import UsageError, printable
from modelbuild.records import record

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434


@record
class Limits:
    """What one client may take; without any of these a single client could fill memory, disk or time."""

    #: Open connections; one more is answered with 503.
    connections: int = 64
    #: Request line and headers together, and the number of headers.
    head_bytes: int = 32 << 10
    headers: int = 100
    #: A request must be there this long after the connection, or the answer before, was; idle connections end too.
    head_timeout_s: float = 10.0
    #: The longest pause between two parts of a body.
    body_idle_timeout_s: float = 60.0
    #: A JSON body; create requests hold texts and small images.
    json_bytes: int = 16 << 20
    #: A blob; and what must stay free on the disk beside it.
    blob_bytes: int = 512 << 30
    spare_disk_bytes: int = 1 << 30
    #: Creates that run at once, and those that wait for their turn.
    builds: int = 4
    waiting_builds: int = 32
    #: What is read and thrown away of a body that is not needed, so that the client gets to read the answer.
    drained_bytes: int = 1 << 20
    #: How long running requests may take to end when the server stops.
    shutdown_s: float = 5.0


@record
class ServerSettings:
    """Where a server listens, what it works on and whom it answers.

    allow_paths: directories that `from` may name files in. allow_hosts, allow_origins: in addition to the built-in
    ones. allow_registries: lower-case hosts that pull and push may contact; no other is ever contacted.
    token: required as a bearer token when it is not empty; without_token: other machines may be answered even so.
    rewrite_gguf: do what Ollama does with imported GGUF files, and with uploads under a wrong digest.
    strict_api: refuse create requests with unknown fields. prune: delete what replaced models leave behind.
    jobs: cores that the actions of one build use together, all when None. executor: a name of `engine.executor`.
    """

    store: Path
    cache: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    allow_paths: tuple[Path, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    allow_registries: tuple[str, ...] = ()
    token: str = ""
    without_token: bool = False
    rewrite_gguf: bool = False
    strict_api: bool = False
    prune: bool = True
    access_log: bool = False
    jobs: int | None = None
    executor: str = "inline"
    limits: Limits = Limits()


def default_address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port that the environment asks for, in quotation marks or not; UsageError ADDRESS as `parse_address`."""
    return parse_address(environment.get("OLLAMA_HOST", "").strip().strip("\"'"))


def url_of(host: str, port: int) -> str:
    """The address as a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of an address as OLLAMA_HOST gives it: `[scheme://]host[:port][/path]`.

    No port means 80 or 443 after a scheme, else 11434; an unusable port counts as not given. An empty host before a
    port means all interfaces. UsageError ADDRESS when there is no usable host.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "", text.strip()
    default_port = {"http": 80, "https": 443}.get(scheme.lower(), DEFAULT_PORT)
    authority = rest.partition("/")[0]
    host, port_text = _split_port(authority)
    if any(char.isspace() or char in "@?#" for char in host):
        raise UsageError("ADDRESS", f"{printable(text)!r} is no address", hint="host:port, such as 127.0.0.1:11434")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() and len(port_text) < 6 else default_port
    if not host:
        host = "0.0.0.0" if authority.startswith(":") else DEFAULT_HOST  # noqa: S104 - as Ollama reads ":1234"
    return host, port if port < 1 << 16 else default_port


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host, port.removeprefix(":")
    if authority.count(":") > 1:  # a bare IPv6 address
        return authority, ""
    host, _, port = authority.partition(":")
    return host, port
