"""Digests: accepted spellings and the canonical one."""

from __future__ import annotations

import hashlib
import sys

import pytest

from modelbuild import digest
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


@pytest.mark.parametrize("has_own", [True, False], ids=["Python's own", "OpenSSL's"])
@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1])
def test_digest_is_sha_256_whoever_computes_it(size: int, has_own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small texts and large ones, with a Python that has its own SHA-256 and with one that does not."""
    digest._small_sha256.cache_clear()
    if not has_own:
        monkeypatch.setitem(sys.modules, "_sha2", None)
        monkeypatch.setitem(sys.modules, "_sha256", None)
    data = b"x" * size

    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest_of(data)
    digest._small_sha256.cache_clear()
