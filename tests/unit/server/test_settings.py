"""Addresses as OLLAMA_HOST gives them."""

from __future__ import annotations

import pytest

from modelbuild.errors import UsageError
from modelbuild.server.settings import parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", 11434)),
        ("127.0.0.1:1234", ("127.0.0.1", 1234)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
        (":1234", ("0.0.0.0", 1234)),
        ("http://example.com", ("example.com", 80)),
        ("https://example.com", ("example.com", 443)),
        ("http://example.com:8080/path", ("example.com", 8080)),
        ("[::1]:99", ("::1", 99)),
        ("::1", ("::1", 11434)),
        ("[::1]", ("::1", 11434)),
        ("localhost:notaport", ("localhost", 11434)),
        ("localhost:70000", ("localhost", 11434)),
    ],
)
def test_parse_address(text: str, expected: tuple[str, int]) -> None:
    """Scheme, port and brackets are optional; an unusable port counts as not given."""
    assert expected == parse_address(text)


def test_an_address_with_blanks_is_refused() -> None:
    """What cannot be a host is an error and not a guess."""
    with pytest.raises(UsageError, match="no address"):
        parse_address("my host")
