"""Where a registry may send us."""

from __future__ import annotations

import pytest

from modelbuild.errors import RemoteError
from modelbuild.remote.address import redirect_target, registry_address, token_realm

ADDRESS = registry_address("models.example")


@pytest.mark.parametrize(
    ("host", "insecure", "url"),
    [
        ("models.example", False, "https://models.example"),
        ("models.example:5000", True, "http://models.example:5000"),
        ("127.0.0.1:5000", False, "http://127.0.0.1:5000"),
        ("localhost:5000", False, "http://localhost:5000"),
        ("localhost.example", False, "https://localhost.example"),
    ],
)
def test_plain_http_is_for_this_machine(host: str, insecure: bool, url: str) -> None:
    """Everything else is encrypted unless a user said otherwise."""
    assert url == registry_address(host, insecure=insecure).url


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://models.example/x", "https://models.example/x"),
        ("https://cdn.example/y?z=1", "https://cdn.example/y?z=1"),
        ("/uploads/7?state=a", "https://models.example/uploads/7?state=a"),
        ("7", "https://models.example/v2/7"),
        ("", "https://models.example/v2/x"),
    ],
)
def test_redirects_that_are_followed(location: str, target: str) -> None:
    """To the registry itself, or encrypted to a public name."""
    assert target == redirect_target(ADDRESS, "https://models.example/v2/x", location)


@pytest.mark.parametrize(
    "target",
    [
        "http://models.example/x",
        "http://cdn.example/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://router/",
        "https://db.internal/",
        "file:///etc/passwd",
        "https://[",
        "https://[::1]:x]/",
    ],
)
def test_redirects_that_are_not(target: str) -> None:
    """Never to machines of our own network, never unencrypted, and nowhere that is no address."""
    with pytest.raises(RemoteError):
        redirect_target(ADDRESS, "https://models.example/v2/x", target)


def test_tokens_are_fetched_from_the_registry_itself() -> None:
    """A realm on the same host gets the query of the challenge."""
    challenge = 'Bearer realm="https://models.example/token",service="r",scope="repository:a/b:pull"'

    assert ("https://models.example/token", {"service": "r", "scope": "repository:a/b:pull"}) == token_realm(
        ADDRESS, challenge
    )


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="https://evil.example/token"',
        'Bearer realm="http://models.example/token"',
        'Bearer realm="https://["',
        "Bearer",
    ],
)
def test_credentials_go_to_nobody_else(challenge: str) -> None:
    """Another realm is refused, so that no password reaches it."""
    with pytest.raises(RemoteError):
        token_realm(ADDRESS, challenge)
