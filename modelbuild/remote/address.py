"""Where a registry is, and which other places it may send us to. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from modelbuild.errors import RemoteError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

_CHALLENGE = late_pattern(r'([a-zA-Z]+)="([^"]*)"')


@record
class Address:
    """A registry: `host` is the name with its port, `url` what every request begins with."""

    host: str
    url: str


def registry_address(host: str, *, insecure: bool = False) -> Address:
    """The address of a registry; plain HTTP only on this machine, or where a user said so. RemoteError: a bad port."""
    parts = urlsplit(f"//{host}")
    try:
        parts.port  # noqa: B018 - looks at it
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        message = f"{printable(host)!r} cannot be the name of a registry"
        hint = "HOST or HOST:PORT, with names of up to 63 characters between the dots and a port up to 65535"
        raise RemoteError("NETWORK", message, hint=hint) from error
    scheme = "http" if insecure or is_local(host) else "https"
    return Address(host, f"{scheme}://{host}")


def is_local(host: str) -> bool:
    """Is this a loopback name?"""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def redirect_target(address: Address, url: str, location: str) -> str:
    """Where the answer of a URL sends us; RemoteError unless to the registry itself or, encrypted, to a public name.

    A registry may keep its blobs elsewhere; it may not make us ask machines of our own network.
    """
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        is_own = f"{parts.scheme}://{parts.netloc}" == address.url
        is_public = parts.scheme == "https" and bool(parts.hostname) and not _is_inner(parts.hostname or "")
    except ValueError:  # no URL at all
        target, is_own, is_public = location, False, False
    if is_own or is_public:
        return target
    raise RemoteError(
        "REGISTRY", f"the registry {address.host} redirects to {printable(target)}, which is not followed"
    )


def token_realm(address: Address, challenge: str) -> tuple[str, dict[str, str]]:
    """Where to fetch a token for a `WWW-Authenticate: Bearer` challenge, and the query to send.

    RemoteError when the realm is another host: it would get credentials that are not for it.
    """
    fields = {key.lower(): value for key, value in _CHALLENGE.findall(challenge)}
    host = urlsplit(address.url)
    try:
        realm = urlsplit(fields.get("realm", ""))
        is_own = realm.hostname == host.hostname and realm.scheme in ("https", host.scheme)
    except ValueError:  # no URL at all
        realm, is_own = urlsplit(""), False
    if not is_own:
        whose = printable(realm.netloc or "nobody")
        raise RemoteError("REGISTRY", f"the registry {address.host} wants a token of {whose}; only its own are fetched")
    query = {key: fields[key] for key in ("service", "scope") if key in fields}
    return fields["realm"], query


def _is_inner(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return name == "localhost" or name.endswith((".localhost", ".local", ".internal")) or "." not in name
