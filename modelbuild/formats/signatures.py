"""What a file is by its first bytes, so that an error can name what was found."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelbuild.late_pattern import late_pattern

#: As many bytes as `describe_format` looks at.
SIGNATURE_BYTES = 64

_FORMATS: Sequence[tuple[re.Pattern[bytes], str, str]] = (
    (
        late_pattern(rb"version https://git-lfs"),
        "a Git LFS pointer, not the file itself",
        "run 'git lfs pull' in the repository it comes from",
    ),
    (
        late_pattern(rb"PK\x03\x04"),
        "a ZIP archive (PyTorch checkpoints are ZIP archives too)",
        "unpack or convert it first",
    ),
    (late_pattern(rb"\x80[\x02-\x05]"), "a Python pickle", "convert the checkpoint to safetensors first"),
    (late_pattern(rb"\x1f\x8b"), "gzip-compressed data", "decompress it first"),
    (late_pattern(rb"\x28\xb5\x2f\xfd"), "zstd-compressed data", "decompress it first"),
    (late_pattern(rb"(?s:.{4})\0{4}\{"), "a safetensors file", "give it a name that ends in .safetensors"),
    (late_pattern(rb"lmgg|tjgg|algg|fmgg"), "a GGML file from before GGUF", "convert it with an older llama.cpp"),
    (late_pattern(rb"(?i)\s*<(!doctype|html)"), "an HTML page", "the download failed; get the file again"),
    (late_pattern(rb"GGUF"), "a GGUF file", "give it a name that ends in .gguf"),
)


def describe_format(start: bytes) -> tuple[str, str]:
    """What the first bytes of a file look like, and what to do about it; two empty strings when unknown."""
    for pattern, what, hint in _FORMATS:
        if pattern.match(start):
            return what, hint
    return "", ""
