"""From rows to blocks and back: cuts work into tiles so that memory stays bounded whatever the tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from modelbuild.formats.gguf.types import GgmlType, block_bytes, block_size, row_bytes
from modelbuild.quantize.reference.arrays import Float32, Uint8, as_lanes, ordered_sum
from modelbuild.records import record

#: Weights of one tile: 256 KiB as float32, so that a dozen work arrays stay in the cache.
TILE_WEIGHTS = 1 << 16

#: Packs blocks of shape (n, block size), with weights of that shape or None, into bytes of shape (n, block bytes).
BlockPacker = Callable[[Float32, Float32 | None], Uint8]
#: Packs rows of shape (rows, columns), with an importance of shape (columns,) or None, into (rows, row bytes).
RowPacker = Callable[[Float32, Float32 | None], Uint8]
#: Unpacks blocks of shape (n, block bytes) into (n, block size), or rows of (rows, row bytes) into (rows, columns).
Unpacker = Callable[[Uint8], Float32]
#: The weights of blocks from importance of the same shape and the mean squares of the rows, shape (n, 1).
Weigh = Callable[[Float32, Float32, Float32], Float32]
_NO_MEANS = np.zeros((1, 1), np.float32)


def pack_by_blocks(type_: GgmlType, pack_blocks: BlockPacker, weigh: Weigh | None = None) -> RowPacker:
    """A packer of rows from one of blocks. weigh: how importance becomes weights; None when it is ignored."""

    def pack_rows(rows: Float32, importance: Float32 | None) -> Uint8:
        out = np.empty((rows.shape[0], row_bytes(type_, rows.shape[1])), np.uint8)
        with np.errstate(all="ignore"):
            means = _row_means(rows) if importance is not None and weigh is weigh_by_row else None
            for tile in _tiles(rows.shape, block_size(type_)):
                blocks = tile.blocks(rows)
                weights = None
                if importance is not None and weigh is not None:
                    weights = weigh(blocks, tile.importance(importance), tile.per_block(means))
                tile.store(out, pack_blocks(blocks, weights), block_bytes(type_))
        return out

    return pack_rows


def unpack_by_blocks(type_: GgmlType, unpack_blocks: Unpacker) -> Unpacker:
    """An unpacker of rows from one of blocks."""
    size, size_bytes = block_size(type_), block_bytes(type_)
    step = TILE_WEIGHTS // size

    def unpack_rows(data: Uint8) -> Float32:
        blocks = np.ascontiguousarray(data).reshape(-1, size_bytes)
        out = np.empty((len(blocks), size), np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, len(blocks), step):
                out[start : start + step] = unpack_blocks(blocks[start : start + step])
        return out.reshape(len(data), -1)

    return unpack_rows


@record
class _Tile:
    """Some rows in full, or a part of one row."""

    rows: slice
    columns: slice
    size: int

    def blocks(self, rows: Float32) -> Float32:
        return np.ascontiguousarray(rows[self.rows, self.columns], dtype=np.float32).reshape(-1, self.size)

    def importance(self, importance: Float32) -> Float32:
        part = importance[self.columns]
        count = self.rows.stop - self.rows.start
        return np.broadcast_to(part, (count, len(part))).reshape(-1, self.size)

    def per_block(self, values: Float32 | None) -> Float32:
        """A value per row as a value per block, shape (blocks, 1)."""
        if values is None:
            return _NO_MEANS
        blocks_per_row = (self.columns.stop - self.columns.start) // self.size
        return np.repeat(values[self.rows], blocks_per_row)[:, np.newaxis]

    def store(self, out: Uint8, packed: Uint8, size_bytes: int) -> None:
        start = self.columns.start // self.size * size_bytes
        stop = self.columns.stop // self.size * size_bytes
        out[self.rows, start:stop] = packed.reshape(self.rows.stop - self.rows.start, -1)


def _row_means(rows: Float32) -> Float32:
    """The mean square of each row, summed in order, shape (rows,)."""
    sums = np.zeros(len(rows), np.float32)
    for tile in _tiles(rows.shape, 1):
        part = np.asarray(rows[tile.rows, tile.columns], np.float32)
        squares = part * part
        squares[:, 0] += sums[tile.rows]
        sums[tile.rows] = np.add.accumulate(squares, axis=1)[:, -1]
    return sums / np.float32(rows.shape[1])


def _tiles(shape: tuple[int, ...], size: int) -> Iterator[_Tile]:
    rows, columns = shape
    column_step = min(columns, TILE_WEIGHTS // size * size) or 1
    row_step = max(1, TILE_WEIGHTS // max(1, columns))
    for row in range(0, rows, row_step):
        for column in range(0, columns, column_step):
            yield _Tile(slice(row, min(rows, row + row_step)), slice(column, min(columns, column + column_step)), size)


# -- how importance becomes weights --------------------------------------------------------------------------------


def weigh_plainly(_blocks: Float32, importance: Float32, _row_means: Float32) -> Float32:
    """The importance itself."""
    return importance


def weigh_by_row(blocks: Float32, importance: Float32, row_means: Float32) -> Float32:
    """Importance times the root of the row's mean square plus the element's own."""
    return importance * np.sqrt(row_means + blocks * blocks)


def weigh_by_block(factor: int) -> Weigh:
    """Importance times the root of `factor` times the block's mean square plus the element's own square."""

    def weigh(blocks: Float32, importance: Float32, _row_means: Float32) -> Float32:
        return importance * np.sqrt(block_mean(blocks, factor) + blocks * blocks)

    return weigh


def block_mean(blocks: Float32, factor: int) -> Float32:
    """`factor` times the mean square of each block, shape (n, 1); exact scaling, factor and size are powers of two."""
    lanes = as_lanes(blocks, blocks.shape[1])
    return (ordered_sum(lanes * lanes) * np.float32(factor / blocks.shape[1]))[:, np.newaxis]
