"""Single numbers among the weights: a few architectures keep what others have in config.json as tensors.

They are the one part of the weights that planning reads, some bytes for each.
"""

from __future__ import annotations

from modelbuild.errors import InputError
from modelbuild.formats.elements import decode
from modelbuild.formats.files import open_input
from modelbuild.formats.safetensors import StoredTensor

_LIMIT_BYTES = 8


def read_scalar(tensor: StoredTensor) -> float:
    """The only number of a stored tensor; InputError SHAPE when there are more."""
    import numpy as np

    if tensor.size_bytes > _LIMIT_BYTES:
        raise InputError("SHAPE", "a single number is expected", path=tensor.path, key=tensor.name)
    with open_input(tensor.path) as file:
        data = file.read_at(tensor.offset, tensor.size_bytes)
    values = decode(np.frombuffer(data, np.uint8).reshape(1, -1), tensor.dtype)
    if values.size != 1:
        raise InputError("SHAPE", "a single number is expected", path=tensor.path, key=tensor.name)
    return float(values[0, 0])
