"""Digests: accepted spellings and the canonical one."""

from __future__ import annotations

import pytest

from modelbuild.digest import digest_of, is_digest, parse_digest
from modelbuild.errors import InputError

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}", f"sha256-{HEX.upper()}"])
def test_accepted_spellings_become_one(text: str) -> None:
    """Requests may use a dash and upper case; what comes out is canonical."""
    assert f"sha256:{HEX}" == parse_digest(text)


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"sha256:{HEX}\n", f"sha256 {HEX}", f"SHA256:{HEX}",
     f"sha512:{HEX}", "sha256:../../../../etc/passwd", "sha256:" + "\uff10" * 64,
     f" sha256:{HEX}", f"sha256:{HEX[:-1]}g"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """No other text is a digest, so none can become part of a path."""
    with pytest.raises(InputError) as caught:
        parse_digest(text)

    assert "DIGEST" == caught.value.code
    assert not is_digest(text)


def test_only_the_canonical_spelling_is_a_digest() -> None:
    """What stands in manifests must be canonical already."""
    assert is_digest(f"sha256:{HEX}")
    assert not is_digest(f"sha256:{HEX.upper()}")
    assert not is_digest(f"sha256-{HEX}")
    assert not is_digest(None)


def test_digest_of_known_bytes() -> None:
    """The standard's own test vector."""
    assert "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == digest_of(b"abc")
