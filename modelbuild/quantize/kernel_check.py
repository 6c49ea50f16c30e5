"""Known answers: what each kernel has to give for a small input before it is trusted.

The expected digests were recorded from llama.cpp (tests/native/test_kernel_check.py compares them with it again).
Needs no numpy, so that it costs nothing to ask.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping
from functools import cache

from modelbuild.formats.gguf.types import GgmlType, row_bytes

#: Five super-blocks: a full batch of the kernels and a short one.
COLUMNS = 1280
_DIGEST_CHARACTERS = 16
_T = GgmlType

#: (without importance, with importance): the first digits of the SHA-256 of the packed row.
KNOWN_DIGESTS: Mapping[GgmlType, tuple[str, str]] = {
    _T.F16: ("f870dc88bf8194fe", "f870dc88bf8194fe"),
    _T.BF16: ("7a986779fe63c47b", "7a986779fe63c47b"),
    _T.Q4_0: ("d772ec1546d20ea2", "e308fa9e311678af"),
    _T.Q4_1: ("599e2fa21414f3e4", "3d0f7db3dd070207"),
    _T.Q5_0: ("97d71d95def76727", "f9e8caf3b4b820bf"),
    _T.Q5_1: ("2873db29d9a667c0", "c5b770ed0d92aef4"),
    _T.Q8_0: ("0eec4646573901de", "0eec4646573901de"),
    _T.Q1_0: ("741b059789c0e637", "741b059789c0e637"),
    _T.Q2_0: ("5d6bbcb18616993b", "5d6bbcb18616993b"),
    _T.Q2_K: ("74dda91b0d061b93", "ed4a68b7083a7675"),
    _T.Q3_K: ("2a9236a6d60a344b", "4829c4f26a7a51d2"),
    _T.Q4_K: ("9dfa94d37d900a2c", "ebb555a0d321e317"),
    _T.Q5_K: ("ae900ee1642314de", "3257d87b94c97d93"),
    _T.Q6_K: ("b8061787710e24e8", "352ce5ba45046e71"),
    _T.IQ4_NL: ("e9dd348b14b63ed0", "5069dfaeeb2aa01a"),
    _T.IQ4_XS: ("c96193f5d126a456", "04aa9b7e367afdea"),
    _T.TQ1_0: ("431d63d2c68a1ed0", "431d63d2c68a1ed0"),
    _T.TQ2_0: ("e78ff7eb053dfff2", "e78ff7eb053dfff2"),
    _T.MXFP4: ("7f4c91d1ecb84bb3", "7f4c91d1ecb84bb3"),
    _T.NVFP4: ("346a3b3b86af3c97", "346a3b3b86af3c97"),
    _T.IQ2_XXS: ("", "9e086429eec253af"),
    _T.IQ2_XS: ("", "97e41d659b30c0db"),
    _T.IQ2_S: ("ffbc9bb14947eb55", "424a4cdf7415509d"),
    _T.IQ3_XXS: ("be19c3e31b37d889", "eadc01ad9218796a"),
    _T.IQ3_S: ("fae4415285d90b76", "d17169d25412d19f"),
    _T.IQ1_S: ("", "743b2f35f305d042"),
    _T.IQ1_M: ("def3eea580e04781", "fb0330a6df57df3d"),
}  # fmt: skip


@cache
def known_weights() -> array[float]:
    """1280 float32 values, roughly bell-shaped around 0, with zeros, an outlier and two flat sub-blocks."""
    values = array("f", bytes(4 * COLUMNS))
    state = 1
    for index in range(COLUMNS):
        total = 0
        for _ in range(3):
            state = (state * 1103515245 + 12345) % (1 << 31)
            total += state >> 19
        values[index] = (total - 6144) / 65536
    values[96:128] = array("f", [0.0] * 32)
    values[300] = 3.0
    values[512:544] = array("f", [-0.125] * 16 + [0.0625] * 16)
    return values


@cache
def known_importance() -> array[float]:
    """1280 float32 values between 0 and 2, some of them 0."""
    return array("f", [(index * 37 % 17) / 8 for index in range(COLUMNS)])


def digest_of(packed: bytes | bytearray) -> str:
    """What KNOWN_DIGESTS holds for a packed row."""
    return hashlib.sha256(packed).hexdigest()[:_DIGEST_CHARACTERS]


def gives_known_bytes(
    pack: Callable[..., int | None], type_: GgmlType, level: str, *, weighted: bool, grid: object = None
) -> bool:
    """Does a code path pack the known weights into the known bytes?

    pack: that of the compiled kernels; grid: what they need for the type.
    """
    out = bytearray(row_bytes(type_, COLUMNS))
    importance = known_importance() if weighted else None
    nonfinite = pack(int(type_), known_weights(), COLUMNS, importance, out, level, grid)
    return nonfinite is None and digest_of(out) == KNOWN_DIGESTS[type_][weighted]
