"""What `from` and `remote_host` refer to on other servers: suffixes and addresses, stored and never contacted."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from modelbuild.errors import InputError, printable

if TYPE_CHECKING:
    from modelbuild.recipe.go_url import Url

CLOUD_HOST = "https://ollama.com:443"
_DEFAULT_PORT = "11434"


def normalize_remote_host(text: str) -> str:
    """The text Ollama stores for a `remote_host`; InputError PATH ("bad remote") when it is no address.

    Reproduces upstream's quirks (`https://ollama.com` gets port 11434, bare `[::1]` is bracketed twice), because the
    stored digest depends on them.
    """
    from modelbuild.recipe.go_url import Url, UrlError, parse_url

    data = text.encode("utf-8", "surrogateescape")
    if text.startswith("/"):
        return _decoded(Url(b"http", host=f"localhost:{_DEFAULT_PORT}".encode(), path=_clean_path(data)))
    if text in ("ollama.com", "http://ollama.com"):
        return CLOUD_HOST
    try:
        url = parse_url(data if b"://" in data else b"http://" + data)
    except UrlError as error:
        hint = "give an address such as https://host:11434"
        raise InputError("PATH", f"bad remote: {printable(text)!r}", hint=hint) from error
    path = _clean_path(url.path) if url.path else b""
    return _decoded(replace(url, host=_with_port(url.host or b"localhost"), path=b"" if path == b"/" else path))


def split_source(text: str) -> tuple[str, str]:
    """A model reference without its source suffix, and the source: "cloud", "local" or "".

    `m:cloud`, `m:20b:cloud` and `m:20b-cloud` mean the cloud, `m:local` this machine. InputError MODELNAME when two
    suffixes are given.
    """
    rest, source = _strip_source(text.strip())
    if source and _strip_source(rest)[1]:
        message = f"use either :local or :cloud, not both: {printable(text)!r}"
        raise InputError("MODELNAME", message)
    return rest, source


def local_name(text: str) -> str:
    """The name under which a model of this reference stands in the store, as `rm` and `pull` understand it.

    `m:local` is `m`; a cloud reference means the stub that older clients made for it: `m:20b:cloud` is `m:20b-cloud`.
    """
    reference, source = split_source(text)
    if source != "cloud":
        return reference
    has_tag = ":" in reference.rpartition("/")[2]
    return f"{reference}-cloud" if has_tag else f"{reference}:cloud"


def _strip_source(text: str) -> tuple[str, str]:
    head, colon, tail = text.rpartition(":")
    tail = tail.strip()
    tag = tail.lower()
    if not colon:
        return text, ""
    if tag in ("cloud", "local"):
        return head, tag
    if tag.endswith("-cloud") and "/" not in tag:
        return f"{head}:{tail[: -len('-cloud')]}", "cloud"
    return text, ""


def _with_port(host: bytes) -> bytes:
    """The host with a port. A host in brackets without one is put into brackets again, as Ollama does."""
    name, colon, _ = host.rpartition(b":")
    is_bracketed = name.startswith(b"[") and name.endswith(b"]")
    inner = name[1:-1] if is_bracketed else name
    if colon and not any(mark in inner for mark in (b"[", b"]", *(() if is_bracketed else (b":",)))):
        return host
    return (b"[%b]" % host if b":" in host else host) + f":{_DEFAULT_PORT}".encode()


def _clean_path(path: bytes) -> bytes:
    """Go's path.Clean: no `.`, `..` or doubled slash, no final slash."""
    cleaned = posixpath.normpath(path)
    return b"/" + cleaned.lstrip(b"/") if path.startswith(b"/") else cleaned


def _decoded(url: Url) -> str:
    return url.to_bytes().decode("utf-8", "replace")
