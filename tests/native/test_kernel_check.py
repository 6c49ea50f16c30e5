"""Kernels prove themselves before they are used; the choice among them is explained."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from modelbuild.errors import UsageError
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize import kernel_check, kernels
from tests.native.test_bytes import SLOW_TO_PREPARE
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp

NORMAL = (np.random.default_rng(3).standard_normal((3, 512)) * 0.02).astype(np.float32)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    kernels._proves_itself.cache_clear()


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "type_", sorted(set(kernel_check.KNOWN_DIGESTS) - SLOW_TO_PREPARE), ids=lambda type_: type_.name
)
def test_known_digests_are_those_of_llamacpp(type_: GgmlType) -> None:
    """The embedded digests are what llama.cpp packs from the known weights."""
    weights = np.array(kernel_check.known_weights(), np.float32).reshape(1, -1)
    importance = np.array(kernel_check.known_importance(), np.float32)
    plain, weighted = kernel_check.KNOWN_DIGESTS[type_]

    assert weighted == kernel_check.digest_of(pack_with_llamacpp(weights, type_, importance).tobytes())
    assert plain in ("", kernel_check.digest_of(pack_with_llamacpp(weights, type_).tobytes() if plain else b""))


def test_every_code_path_proves_itself(native: ModuleType) -> None:
    """All kernels of all code paths of this processor give the known bytes."""
    for level in native.levels():
        for type_, packer in kernels.native_packers().items():
            for weighted in (False, True):
                if packer.weighted if weighted else packer.plain:
                    grid = kernels.native_grid(type_)
                    assert kernel_check.gives_known_bytes(native.pack, type_, level, weighted=weighted, grid=grid), (
                        type_
                    )


def test_a_kernel_with_other_bytes_is_not_used(native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the known bytes do not come out, numpy packs that type, and the report names it."""
    broken = kernel_check.KNOWN_DIGESTS | {GgmlType.Q4_K: ("0", "0")}  # type: ignore[operator]
    monkeypatch.setattr(kernel_check, "KNOWN_DIGESTS", broken)

    active = kernels.active_path(check=True)

    assert native.levels()[-1] == active.name
    assert (GgmlType.Q4_K,) == active.failed
    assert kernels.choose_level(GgmlType.Q4_K, weighted=False) is None
    assert active.name == kernels.choose_level(GgmlType.Q6_K, weighted=False)
    expected = kernels.pack(NORMAL, GgmlType.Q4_K, path="numpy")
    assert np.array_equal(expected, kernels.pack(NORMAL, GgmlType.Q4_K))
    with pytest.raises(UsageError, match="no compiled kernel packs Q4_K here"):
        kernels.pack(NORMAL, GgmlType.Q4_K, path="native")


def test_variable_chooses_the_path(native: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """MODELBUILD_KERNELS forces numpy or a code path; what the machine lacks is an error that lists what it has."""
    monkeypatch.setenv(kernels.VARIABLE, "numpy")
    assert "numpy" == kernels.active_path().name
    monkeypatch.setenv(kernels.VARIABLE, "Baseline")
    assert "baseline" == kernels.active_path().name
    monkeypatch.setenv(kernels.VARIABLE, "mmx")
    with pytest.raises(UsageError, match="'mmx', but this machine has only auto, numpy, baseline"):
        kernels.active_path()


def test_without_the_extension_numpy_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without compiled kernels works, says so, and refuses to promise them."""
    monkeypatch.setattr(kernels, "load_native", lambda: None)
    monkeypatch.setattr(kernels, "native_packers", dict)

    active = kernels.active_path(check=True)

    assert ("numpy", ()) == (active.name, active.available)
    assert "not built" in active.reason
    assert (3, 288) == kernels.pack(NORMAL, GgmlType.Q4_K).shape
    assert kernels.find_nonfinite(NORMAL) is None
    with pytest.raises(UsageError, match="no compiled kernel"):
        kernels.pack(NORMAL, GgmlType.Q4_K, path="native")


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_threads_do_not_change_the_bytes(native: ModuleType, threads: int | None) -> None:
    """However the rows are shared out, the result is the same."""
    rows = np.random.default_rng(4).standard_normal((1100, 512)).astype(np.float32)
    importance = np.random.default_rng(5).random(512).astype(np.float32)
    expected = kernels.pack(rows, GgmlType.Q4_K, importance=importance, threads=1)

    assert np.array_equal(expected, kernels.pack(rows, GgmlType.Q4_K, importance=importance, threads=threads))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_", [GgmlType.Q8_0, GgmlType.Q4_K, GgmlType.Q6_K, GgmlType.F16], ids=lambda t: t.name)
def test_values_that_are_not_finite_take_the_reference(native: ModuleType, type_: GgmlType, value: float) -> None:
    """Where such values are allowed, they give the same bytes on every path."""
    rows = NORMAL.copy()
    rows[1, 7] = value

    assert np.array_equal(kernels.pack(rows, type_, path="numpy"), kernels.pack(rows, type_, path="native"))


@pytest.mark.parametrize("compiled", [True, False])
def test_first_nonfinite_value_is_found(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """With and without the extension, the index of the first such value is given."""
    if not compiled:
        monkeypatch.setattr(kernels, "load_native", lambda: None)
    rows = np.zeros((600, 512), np.float32)
    assert kernels.find_nonfinite(rows) is None
    rows[590, 3] = rows[599, 9] = np.inf

    assert 590 * 512 + 3 == kernels.find_nonfinite(rows)
