"""Pins: blobs that stay although no model needs them, until the pin is removed.

A pin is a small file in the staging directory of the store, so everybody who deletes there sees it, whatever cache they
use. The other program that shares a store knows nothing of pins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelbuild.digest import Digest, is_digest, sha256_hex
from modelbuild.errors import StoreError, printable
from modelbuild.records import record
from modelbuild.store.blobs import PIN_PREFIX, BlobStore
from modelbuild.store.staged import unusable_store

#: A pin lists the blobs of one manifest; a larger file is none of ours.
_LIMIT_BYTES = 1 << 20


@record
class Pin:
    """A name, and the blobs that are kept under it: those that the model of this name had, or the one blob it is."""

    name: str
    digests: tuple[Digest, ...]


def write_pin(blobs: BlobStore, pin: Pin) -> None:
    """Keep the blobs of a pin from now on; a pin of the same name is replaced, in one step."""
    blobs.prepare()
    with blobs.stage() as staged:
        staged.write_at(0, "".join(f"{line}\n" for line in (pin.name, *sorted(set(pin.digests)))).encode())
        staged.replace(_path(blobs, pin.name))


def remove_pin(blobs: BlobStore, name: str) -> bool:
    """Remove a pin, a damaged one as well; false when there is none of this name."""
    try:
        _path(blobs, name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable_store(blobs.staging, error) from error
    return True


def read_pins(blobs: BlobStore) -> list[Pin]:
    """All pins, sorted by name; StoreError for one that cannot be read, since then nothing may be deleted."""
    found = (_read(path) for path in _paths(blobs))
    return sorted((pin for pin in found if pin is not None), key=lambda pin: pin.name)


def pinned_blobs(pins: Iterable[Pin]) -> set[Digest]:
    """Everything that is kept."""
    return {digest for pin in pins for digest in pin.digests}


def _path(blobs: BlobStore, name: str) -> Path:
    return blobs.staging / f"{PIN_PREFIX}{sha256_hex(name.encode())[:32]}"


def _paths(blobs: BlobStore) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(blobs.staging))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unusable_store(blobs.staging, error) from error
    yield from (blobs.staging / name for name in names if name.startswith(PIN_PREFIX))


def _read(path: Path) -> Pin | None:
    """A pin; None when somebody has just removed it."""
    try:
        with path.open("rb") as source:
            name, *lines = source.read(_LIMIT_BYTES).decode("utf-8", "replace").splitlines() or [""]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable_store(path, error) from error
    if not name or not lines or not all(map(is_digest, lines)):
        hint = "pin the model again, or remove the file"
        raise StoreError("STORE", f"the pin {path} of {printable(name)!r} is damaged", hint=hint)
    return Pin(name, tuple(map(Digest, lines)))
