"""What `from` and `remote_host` refer to on other servers: suffixes and addresses, stored and never contacted."""

from __future__ import annotations

import posixpath
import re

from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern

CLOUD_HOST = "https://ollama.com:443"
_DEFAULT_PORT = "11434"
_URL = late_pattern(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.ASCII | re.DOTALL,
)
_BAD_ESCAPE = late_pattern(r"%(?![0-9A-Fa-f]{2})")
#: Everything but these; a class that lists what is allowed takes milliseconds to compile.
_HOST_ALLOWED = late_pattern(r"[^\x00-\x20#/?@\\^`{|}\x7f]*")


def normalize_remote_host(text: str) -> str:
    """The text Ollama stores for a `remote_host`; InputError PATH ("bad remote") when it is no address.

    Reproduces upstream's quirks (`https://ollama.com` gets port 11434, bare `[::1]` is bracketed twice), because the
    stored digest depends on them.
    """
    if text.startswith("/"):
        return f"http://localhost:{_DEFAULT_PORT}{_clean_path(text)}"
    url = text if "://" in text else "http://" + text
    if url in ("http://ollama.com", "ollama.com") or text == "ollama.com":
        return CLOUD_HOST
    match = _URL.fullmatch(url)
    if match is None or _BAD_ESCAPE.search(url) or any(ord(char) < 0x20 or char == "\x7f" for char in url):
        raise _bad_remote(text)
    user, at, host = match["authority"].rpartition("@")
    path = _clean_path(match["path"]) if match["path"] else ""
    rest = ("" if path == "/" else path) + (match["query"] or "") + (match["fragment"] or "")
    return f"{match['scheme'].lower()}://{user}{at}{_with_port(host, text)}{rest}"


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
    tag = tail.strip().lower()
    if not colon:
        return text, ""
    if tag in ("cloud", "local"):
        return head.strip(), tag
    if tag.endswith("-cloud") and "/" not in tag:
        return text.rstrip()[: -len("-cloud")], "cloud"
    return text, ""


def _with_port(host: str, text: str) -> str:
    if _HOST_ALLOWED.fullmatch(host) is None or " " in host:
        raise _bad_remote(text)
    port = host.rpartition("]")[2].rpartition(":")
    if host.startswith("[") and "]" not in host:
        raise _bad_remote(text)
    if port[1] and port[2] and not re.fullmatch("[0-9]+", port[2], re.ASCII):
        raise _bad_remote(text)
    if not host:
        return f"localhost:{_DEFAULT_PORT}"
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed and (host.startswith("[") or host.count(":") == 1):
        return host
    return f"[{host}]:{_DEFAULT_PORT}" if ":" in host else f"{host}:{_DEFAULT_PORT}"


def _clean_path(path: str) -> str:
    """Go's path.Clean: no `.`, `..` or doubled slash, no final slash."""
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if path.startswith("/") else cleaned


def _bad_remote(text: str) -> InputError:
    return InputError("PATH", f"bad remote: {printable(text)!r}", hint="give an address such as https://host:11434")
