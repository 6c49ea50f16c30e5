"""Which type each tensor gets, and the packing itself.

`pack` and `unpack` are the public functions; they load numpy, so they are imported when first used.
`presets` and `mixes` decide types from names and shapes alone and load nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelbuild.quantize.packing import pack, unpack

__all__ = ["pack", "unpack"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modelbuild.quantize import packing

    return getattr(packing, name)
