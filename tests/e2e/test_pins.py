"""Pins: what they keep, from whom, and until when."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from modelbuild.store import pins
from modelbuild.store.blobs import PIN_PREFIX, BlobStore
from tests.space import Space

RECIPE = "model: m\nfrom: 'big:120b'\nremote_host: 'https://models.example.com'\nsystem: One.\n"
ONE = f"sha256-{sha256(b'One.').hexdigest()}"


@pytest.fixture
def built(space: Space) -> Space:
    """A model with a blob of its own."""
    space.recipe(RECIPE)
    space.build()
    return space


def _pin(space: Space, *arguments: str) -> str:
    outcome = space.run("pin", *arguments)
    assert 0 == outcome.status, outcome.stderr
    return outcome.stdout


def test_a_pinned_model_survives_everything_but_its_pin(built: Space) -> None:
    """A new build, rm, gc and the sweep of a later build leave its blobs; without the pin gc deletes them."""
    pinned = built.blobs()

    assert "pinned m:latest  2 blobs, " in _pin(built, "m")
    built.recipe(RECIPE.replace("One.", "Two."))
    built.build()
    assert pinned < built.blobs()
    assert 0 == built.run("rm", "m").status
    assert pinned == built.blobs()
    assert 0 == built.run("gc", "--older-than", "0").status
    assert pinned == built.blobs()
    built.build("--force")
    assert "m:latest  2 blobs, " in _pin(built)

    assert "unpinned m:latest\n" == _pin(built, "--remove", "M")
    assert 0 == built.run("rm", "m").status
    built.run("gc", "--older-than", "0")
    assert set() == built.blobs()
    assert "" == _pin(built)
    assert not BlobStore(built.store).staging.exists()


def test_a_pinned_model_comes_back_without_work(built: Space) -> None:
    """What a pin kept is found again by its digest."""
    _pin(built, "m")
    built.run("rm", "m")
    before = {name: (built.store / "blobs" / name).stat().st_ino for name in built.blobs()}

    built.build()

    assert before == {name: (built.store / "blobs" / name).stat().st_ino for name in built.blobs()}


def test_a_single_blob_is_pinned_by_its_digest(built: Space) -> None:
    """Any spelling of a digest; the blobs around it go."""
    _pin(built, ONE)
    built.run("rm", "m")

    assert {ONE} == built.blobs()
    _pin(built, "--remove", ONE.replace("-", ":").upper().replace("SHA", "sha"))
    built.run("gc", "--older-than", "0")
    assert set() == built.blobs()


def test_du_lists_what_only_pins_keep(built: Space) -> None:
    """A blob that a model has is counted there, and nowhere else."""
    _pin(built, ONE)
    assert f"{'kept by pins alone':<30}{'0 B':>12}" in built.run("du").stdout

    built.run("rm", "m")

    text = built.run("du").stdout
    assert f"{'kept by pins alone':<30}{'4 B':>12}" in text
    assert f"{'not used by any model':<30}{'0 B':>12}" in text
    assert f"{'partial files of killed runs':<30}{'0 B':>12}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no model 'nothing:latest'"),
        (("sha256:" + "0" * 64,), "no blob sha256:0000"),
        (("sha256:12",), "invalid digest"),
        (("--remove", "m"), "m:latest is not pinned"),
        (("--remove",), "--remove takes names"),
        (("m", "nothing"), "no model 'nothing:latest'"),
    ],
)
def test_what_cannot_be_pinned_is_an_error(built: Space, arguments: tuple[str, ...], message: str) -> None:
    """And nothing is pinned, not even the names that exist."""
    outcome = built.run("pin", *arguments)

    assert 0 < outcome.status
    assert message in outcome.stderr
    assert "" == _pin(built)


@pytest.mark.parametrize("content", [b"", b"m:latest\n", b"m:latest\nsha256:12", b"\xff\x00"])
def test_nothing_is_deleted_while_a_pin_cannot_be_read(built: Space, content: bytes) -> None:
    """A damaged pin may have kept anything; pinning again or removing it mends that."""
    _pin(built, "m")
    path = next(BlobStore(built.store).staging.glob("pin-*"))
    path.write_bytes(content)
    orphan = built.write(f"models/blobs/sha256-{sha256(b'x').hexdigest()}", b"x")
    os.utime(orphan, (0, 0))

    outcome = built.run("gc", "--older-than", "0")

    assert (1, True) == (outcome.status, orphan.exists())
    assert "is damaged" in outcome.stderr
    _pin(built, "m")
    assert 0 == built.run("gc", "--older-than", "0").status
    assert not Path(orphan).exists()


def test_a_pin_that_goes_while_pins_are_read_is_none(built: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who removes a pin disturbs nobody who looks at all of them."""
    _pin(built, "m")
    listed = pins._paths
    monkeypatch.setattr(pins, "_paths", lambda blobs: [*listed(blobs), blobs.staging / f"{PIN_PREFIX}gone"])

    assert ["m:latest"] == [pin.name for pin in pins.read_pins(BlobStore(built.store))]
