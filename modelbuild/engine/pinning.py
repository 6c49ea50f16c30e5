"""Pinning models and blobs by what people type: a name of the store, or a digest."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.digest import parse_digest
from modelbuild.engine.stored import find_name, read_stored
from modelbuild.errors import InputError, ProblemCollector, UsageError, printable
from modelbuild.model_name import parse_name
from modelbuild.store.pins import Pin, read_pins, remove_pin, write_pin
from modelbuild.store.store import Store

_DIGEST_STARTS = ("sha256:", "sha256-")


def pin(store: Store, texts: Sequence[str]) -> list[Pin]:
    """Keep the blobs that models have now, or single blobs; all are looked at before the first is kept.

    Raises InputError for what is not there. Nothing is deleted between the look and the pin.
    """
    problems = ProblemCollector()
    pins: list[Pin] = []
    with store.hold():
        for text in texts:
            with problems.collect():
                pins.append(_pin_of(store, text))
        problems.finish()
        for item in pins:
            write_pin(store.blobs, item)
    return pins


def unpin(store: Store, text: str) -> str:
    """Remove a pin and return its name; UsageError when there is none. The model itself may be long gone."""
    wanted = parse_digest(text) if text.startswith(_DIGEST_STARTS) else str(parse_name(text))
    if remove_pin(store.blobs, wanted):
        return wanted
    for item in read_pins(store.blobs):
        if item.name.lower() == wanted.lower() and remove_pin(store.blobs, item.name):
            return item.name
    raise UsageError("UNKNOWN", f"{printable(wanted)} is not pinned", hint="'modelbuild pin' lists the pins")


def _pin_of(store: Store, text: str) -> Pin:
    if text.startswith(_DIGEST_STARTS):
        digest = parse_digest(text)
        if store.blobs.size_of(digest) is None:
            raise InputError("MANIFEST", f"no blob {digest} in the store {store.root}")
        return Pin(digest, (digest,))
    name = find_name(store, text)
    manifest, _ = read_stored(store, name)
    return Pin(str(name), tuple(layer.digest for layer in (manifest.config, *manifest.layers)))
