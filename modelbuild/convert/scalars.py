"""Numbers among the weights that become keys: a few architectures keep as tensors what others have in config.json.

They are the one part of the weights that planning reads: some bytes, or the few rows without a token of an embedding.
"""

from __future__ import annotations

from modelbuild.errors import InputError
from modelbuild.formats.elements import decode
from modelbuild.formats.files import open_input
from modelbuild.formats.safetensors import StoredTensor

_LIMIT_BYTES = 8
#: More rows than this are no remainder of a vocabulary; published models have below a megabyte of them.
_ROWS_LIMIT_BYTES = 16 << 20


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


def zero_rows(matrix: StoredTensor, first: int) -> list[int]:
    """Which rows from `first` on hold nothing but zeros; InputError SHAPE when there are too many to look at."""
    import numpy as np

    rows = matrix.shape[0]
    if first >= rows:
        return []
    row_bytes = matrix.size_bytes // rows
    size = (rows - first) * row_bytes
    if size > _ROWS_LIMIT_BYTES:
        message = f"{rows - first:,} rows have no token, {size:,} bytes of at most {_ROWS_LIMIT_BYTES:,}"
        raise InputError("SHAPE", message, path=matrix.path, key=matrix.name, hint="is this the model's tokenizer?")
    with open_input(matrix.path) as file:
        data = file.read_at(matrix.offset + first * row_bytes, size)
    values = decode(np.frombuffer(data, np.uint8).reshape(rows - first, row_bytes), matrix.dtype)
    return [first + int(row) for row in np.flatnonzero(~values.any(axis=1))]
