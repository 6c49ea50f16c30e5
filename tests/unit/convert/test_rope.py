"""Rotary settings as keys and factors."""

from __future__ import annotations

import numpy as np
import pytest

from modelbuild.convert.rope import llama3_factors

#: base, dimensions, factor, low, high, original context; what the reference converter computes from them with PyTorch.
RECORDED = (
    ((500000.0, 16, 32.0, 1.0, 4.0, 256.0), [1.0, 1.0, 4.923473834991455, *[32.0] * 5]),
    (
        (10000.0, 32, 8.0, 1.0, 4.0, 64.0),
        [1.0, 1.0, 1.293975830078125, 2.7651731967926025, 7.667385101318359, *[8.0] * 11],
    ),
    (
        (1000000.0, 64, 16.0, 1.0, 4.0, 4096.0),
        [*[1.0] * 12, 1.1165794134140015, 2.0245919227600098, 4.290146350860596, 15.695816993713379, *[16.0] * 16],
    ),
)


@pytest.mark.parametrize(("settings", "expected"), RECORDED)
def test_llama3_factors_are_the_references_to_the_last_bit(settings: tuple[float, ...], expected: list[float]) -> None:
    """They are part of the file, so a bit of difference is another file; powers depend on no processor."""
    base, dimensions, factor, low, high, original = settings

    found = llama3_factors(base=base, dimensions=int(dimensions), factor=factor, low=low, high=high, original=original)

    np.testing.assert_array_equal(np.array(expected, np.float32), np.array(found, np.float32))
