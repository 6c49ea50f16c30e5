"""Chooses who packs: the compiled kernels on the best code path of this processor, or the numpy reference.

All give the same bytes. MODELBUILD_KERNELS forces one: `auto` (default), `numpy`, or a code path such as `baseline`,
`avx2`, `avx512`. A code path has to prove itself for each type, once a process, before it is used
(`kernel_check`): a compiler or processor that rounds differently makes that type fall back to numpy, never the bytes
change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from modelbuild.errors import UsageError
from modelbuild.formats.gguf.types import GgmlType, row_bytes
from modelbuild.quantize.kernel_check import gives_known_bytes
from modelbuild.records import record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]
    Uint8 = npt.NDArray[np.uint8]

Path = Literal["auto", "native", "numpy"]
VARIABLE = "MODELBUILD_KERNELS"
AUTO, NUMPY = "auto", "numpy"
#: Weights that a thread takes at a time: 1 MiB as float32, so that what it packs stays in its cache.
_CHUNK_WEIGHTS = 1 << 18


@record
class KernelPath:
    """Which kernels are active.

    name: `numpy`, or the code path of the compiled kernels; reason: one sentence for people; available: the code paths
    that this processor can run, slowest first, empty without compiled kernels; failed: types that fall back to numpy
    because the code path did not give their known bytes.
    """

    name: str
    reason: str
    available: tuple[str, ...]
    failed: tuple[GgmlType, ...] = ()


@record
class NativePacker:
    """What the compiled kernels can do for a type; needs_grid: they have to be given its grid."""

    plain: bool
    weighted: bool
    needs_grid: bool


def pack(
    values: Float32,
    type: GgmlType,  # noqa: A002 - the word users know
    *,
    importance: Float32 | None = None,
    path: Path = "auto",
    threads: int | None = None,
) -> Uint8:
    """Rows packed into blocks of a type; arguments are expected to be sound (`modelbuild.quantize.pack` checks them).

    values: float32 of shape (rows, columns); importance: float32 of shape (columns,).
    path: `native` insists on the compiled kernels, `numpy` on the reference. threads: of the compiled kernels; all
    processors when None. Returns uint8 of shape (rows, row bytes). Values that are not finite are left to the
    reference, so that they too give the same bytes on every path.
    Raises UsageError KERNELS when `native` is asked for and there is no such kernel.
    """
    level = None if path == NUMPY else choose_level(type, weighted=importance is not None)
    if level is None:
        if path == "native":
            message = f"no compiled kernel packs {type.name}{' with importance' if importance is not None else ''} here"
            raise UsageError("KERNELS", message, hint="modelbuild doctor says which kernels there are and why")
        from modelbuild.quantize.reference import PACKERS

        return PACKERS[type](values, importance)
    return _pack_native(values, type, importance, level, threads)


def choose_level(type_: GgmlType, *, weighted: bool) -> str | None:
    """The code path that packs a type; None when numpy has to do it."""
    active = active_path()
    if active.name == NUMPY:
        return None
    packer = native_packers().get(type_)
    if packer is None or not (packer.weighted if weighted else packer.plain):
        return None
    return active.name if _proves_itself(type_, active.name, weighted) else None


def find_nonfinite(values: Float32) -> int | None:
    """Index, in C order, of the first value that is NaN or infinite; None when all are finite."""
    native = load_native()
    if native is not None and values.flags.c_contiguous:
        found: int | None = native.find_nonfinite(values)
        return found
    import numpy as np

    flat = values.reshape(-1)
    for start in range(0, flat.size, _CHUNK_WEIGHTS):
        finite = np.isfinite(flat[start : start + _CHUNK_WEIGHTS])
        if not finite.all():
            return start + int(finite.argmin())
    return None


@cache
def load_native() -> ModuleType | None:
    """The compiled kernels; None when they were not built or cannot be loaded."""
    try:
        from modelbuild.quantize import _native
    except ImportError:
        return None
    module: ModuleType = _native
    return module


@cache
def native_packers() -> Mapping[GgmlType, NativePacker]:
    """What the compiled kernels can pack; empty without them."""
    native = load_native()
    rows = native.packers() if native is not None else ()
    return {GgmlType(row[0]): NativePacker(plain=row[3], weighted=row[4], needs_grid=row[5]) for row in rows}


@cache
def native_grid(type_: GgmlType) -> object:
    """The grid of a type as the compiled kernels want it; None for types without one. Made once, in milliseconds."""
    native, packer = load_native(), native_packers().get(type_)
    if native is None or packer is None or not packer.needs_grid:
        return None
    from modelbuild.quantize.reference.grids import load_points

    points = load_points("IQ1_S" if type_ is GgmlType.IQ1_M else type_.name)
    return native.make_grid(points.numbers, points.levels.shape[1], points.base, points.shells)


def active_path(*, check: bool = False) -> KernelPath:
    """Which kernels are active, and why. check: prove all types now, a few milliseconds, and name those that failed.

    Raises UsageError KERNELS when MODELBUILD_KERNELS names something this machine does not have.
    """
    native = load_native()
    available = tuple(native.levels()) if native is not None else ()
    active = _decide(os.environ.get(VARIABLE, "").strip().lower() or AUTO, available)
    if not check or active.name == NUMPY:
        return active
    failed = tuple(type_ for type_, packer in native_packers().items() if not _is_proven(type_, packer, active.name))
    return KernelPath(active.name, active.reason, active.available, failed)


def _decide(wanted: str, available: tuple[str, ...]) -> KernelPath:
    if wanted == NUMPY:
        return KernelPath(NUMPY, f"{VARIABLE} asks for it", available)
    if wanted == AUTO:
        if not available:
            return KernelPath(NUMPY, "the compiled kernels were not built or cannot be loaded", available)
        return KernelPath(available[-1], "the fastest that this processor can run", available)
    if wanted in available:
        return KernelPath(wanted, f"{VARIABLE} asks for it", available)
    choices = ", ".join((AUTO, NUMPY, *available))
    raise UsageError("KERNELS", f"{VARIABLE} is {wanted!r}, but this machine has only {choices}")


def _is_proven(type_: GgmlType, packer: NativePacker, level: str) -> bool:
    kinds = [weighted for weighted, can in ((False, packer.plain), (True, packer.weighted)) if can]
    return all(_proves_itself(type_, level, weighted) for weighted in kinds)


@cache
def _proves_itself(type_: GgmlType, level: str, weighted: bool) -> bool:
    native = load_native()
    if native is None:
        return False
    return gives_known_bytes(native.pack, type_, level, weighted=weighted, grid=native_grid(type_))


def _pack_native(
    values: Float32, type_: GgmlType, importance: Float32 | None, level: str, threads: int | None
) -> Uint8:
    import numpy as np

    values = np.ascontiguousarray(values)
    count, columns = values.shape
    out = np.empty((count, row_bytes(type_, columns)), np.uint8)
    step = max(1, _CHUNK_WEIGHTS // max(1, columns))
    chunks = [slice(start, start + step) for start in range(0, count, step)]

    def pack_chunk(rows: slice) -> None:
        _pack_chunk(values[rows], type_, importance, level, out[rows])

    workers = min(len(chunks), threads or usable_processors())
    if workers <= 1:
        for chunk in chunks:
            pack_chunk(chunk)
    else:
        with ThreadPoolExecutor(workers, "pack") as pool:
            list(pool.map(pack_chunk, chunks))
    return out


def _pack_chunk(rows: Float32, type_: GgmlType, importance: Float32 | None, level: str, out: Uint8) -> None:
    native = load_native()
    assert native is not None
    grid = native_grid(type_)
    if rows.size and native.pack(int(type_), rows, rows.shape[1], importance, out, level, grid) is not None:
        from modelbuild.quantize.reference import PACKERS

        out[:] = PACKERS[type_](rows, importance)


def usable_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
