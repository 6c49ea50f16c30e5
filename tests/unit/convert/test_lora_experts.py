"""Adapters of fused experts: two parameters of a block in the library, a matrix for each expert in checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import AdapterBase, base_of_checkpoint, base_of_header
from modelbuild.convert.lora_names import adapter_files
from modelbuild.convert.planned import read_floats
from modelbuild.errors import InputError, UnsupportedError
from modelbuild.formats.gguf.reader import open_gguf
from tests.adapters import ALPHA, RANK, changes_of, random_pair, write_adapter
from tests.family_checkpoints import write_family_checkpoint
from tests.reference import read_span
from tests.written import write_conversion

_EXPERTS, _HIDDEN = 4, 64
_BLOCK = "model.layers.1.mlp"
_BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
Pair = tuple[np.ndarray, np.ndarray]


def fused_pair(rows: int, columns: int, rank: int, seed: int) -> Pair:
    """A and B of all experts of a block, as the library shapes them."""
    return random_pair(rows, columns, rank * _EXPERTS, seed)


def change_of_experts(pair: Pair, scale: float) -> np.ndarray:
    """(experts, rows, columns); what the library adds when it merges."""
    a, b = pair
    rank = len(a) // _EXPERTS
    a, b = a.reshape(_EXPERTS, rank, -1), b.reshape(len(b), rank, _EXPERTS)
    return np.einsum("ore,eri->eoi", b, a) * np.float32(scale)


def adapter_of(directory: Path, pairs: dict[str, Pair], **config: object) -> Checkpoint:
    write_adapter(directory, {}, **config)
    save_file(
        {
            f"base_model.model.{module}.lora_{half}.weight": matrix
            for module, pair in pairs.items()
            for half, matrix in zip("AB", pair, strict=True)
        },
        directory / "adapter_model.safetensors",
    )
    return adapter_files(directory)


def bases(directory: Path, hf_class: str) -> tuple[AdapterBase, AdapterBase]:
    """The same base as a checkpoint and as a GGUF."""
    checkpoint = Checkpoint.of_directory(write_family_checkpoint(directory / "base", hf_class))
    conversion = plan_conversion(checkpoint, ConversionOptions(float_type="F32"))
    file = write_conversion(conversion, directory / "base.gguf")
    return base_of_checkpoint(checkpoint), base_of_header(open_gguf(file))


@pytest.mark.parametrize(("hf_class", "width"), [("MixtralForCausalLM", 96), ("Qwen3MoeForCausalLM", 32)])
@pytest.mark.parametrize("stabilized", [False, True])
def test_fused_experts_change_as_when_merged(tmp_path: Path, hf_class: str, width: int, stabilized: bool) -> None:
    """The inner pair is gate and up, the outer one down; patterns know them by the names of the parameters."""
    inner = fused_pair(2 * width, _HIDDEN, 2 * RANK, 1)
    outer = fused_pair(_HIDDEN, width, RANK, 2)
    files = adapter_of(
        tmp_path / "adapter",
        {f"{_BLOCK}.experts.base_layer": inner, f"{_BLOCK}.experts": outer},
        target_parameters=["gate_up_proj", "down_proj"],
        rank_pattern={r".*\.gate_up_proj": 2 * RANK},
        alpha_pattern={r".*\.gate_up_proj": 3 * ALPHA},
        use_rslora=stabilized,
    )

    for base in bases(tmp_path, hf_class):
        changes = changes_of(plan_adapter(files, base, "F32"))

        power = 0.5 if stabilized else 1.0
        both = change_of_experts(inner, 3 * ALPHA / (2 * RANK) ** power)
        wanted = {"gate": both[:, :width], "up": both[:, width:], "down": change_of_experts(outer, ALPHA / RANK**power)}
        assert {f"blk.1.ffn_{name}_exps.weight" for name in wanted} == set(changes)
        for name, change in wanted.items():
            np.testing.assert_allclose(changes[f"blk.1.ffn_{name}_exps.weight"], change, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "rows", "columns", "names"),
    [("gate_up_proj", 192, _HIDDEN, ["gate", "up"]), ("down_proj", _HIDDEN, 96, ["down"])],
)
def test_one_parameter_alone_is_not_wrapped(
    tmp_path: Path, parameter: str, rows: int, columns: int, names: list[str]
) -> None:
    """Then the configuration tells which of the two it is; the router of the library has its own name, too."""
    pairs = {f"{_BLOCK}.experts": fused_pair(rows, columns, RANK, 3), f"{_BLOCK}.gate": random_pair(4, _HIDDEN)}
    files = adapter_of(tmp_path / "adapter", pairs, target_parameters=[f"mlp.experts.{parameter}", "gate.weight"])

    changes = changes_of(plan_adapter(files, bases(tmp_path, "MixtralForCausalLM")[0]))

    assert {"blk.1.ffn_gate_inp.weight", *(f"blk.1.ffn_{name}_exps.weight" for name in names)} == set(changes)


@pytest.mark.parametrize(
    ("hf_class", "module", "width"),
    [
        ("MixtralForCausalLM", "model.layers.1.block_sparse_moe.switch_mlp", 96),
        ("Qwen3MoeForCausalLM", f"{_BLOCK}.switch_mlp", 32),
    ],
)
@pytest.mark.parametrize("is_flat", [False, True])
def test_experts_of_mlx_stand_module_by_module(
    tmp_path: Path, hf_class: str, module: str, width: int, is_flat: bool
) -> None:
    """Stacks of matrices as PEFT has them; the first releases wrote those of A one below the other."""
    random = np.random.default_rng(1)
    shapes = {"gate": (width, _HIDDEN), "up": (width, _HIDDEN), "down": (_HIDDEN, width)}
    pairs = {
        name: (
            random.standard_normal((_EXPERTS, RANK, columns)).astype(np.float32) / 8,
            random.standard_normal((_EXPERTS, rows, RANK)).astype(np.float32) / 8,
        )
        for name, (rows, columns) in shapes.items()
    }
    directory = tmp_path / "adapter"
    write_adapter(directory, {}, fine_tune_type="lora", peft_type=None, lora_parameters={"rank": RANK, "scale": 2.5})
    (directory / "adapter_model.safetensors").unlink()
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"{module}.{name}_proj.lora_a"] = a.reshape(-1, a.shape[-1]) if is_flat else a
        tensors[f"{module}.{name}_proj.lora_b"] = b
    save_file(tensors, directory / "adapters.safetensors")

    for base in bases(tmp_path, hf_class):
        changes = changes_of(plan_adapter(adapter_files(directory), base))

        assert {f"blk.1.ffn_{name}_exps.weight" for name in pairs} == set(changes)
        for name, (a, b) in pairs.items():
            wanted = (b @ a) * np.float32(2.5)
            np.testing.assert_allclose(changes[f"blk.1.ffn_{name}_exps.weight"], wanted, rtol=1e-4, atol=1e-6)


def test_fused_experts_are_read_in_any_pieces(tmp_path: Path) -> None:
    """Any range of rows equals those rows of the whole, and the stored matrix counts once."""
    files = adapter_of(
        tmp_path / "adapter",
        {f"{_BLOCK}.experts": fused_pair(_HIDDEN, 96, RANK, 3)},
        target_parameters=_BOTH[1:],
    )

    for tensor in plan_adapter(files, bases(tmp_path, "MixtralForCausalLM")[0]).tensors:
        experts, rows, _ = tensor.source.shape
        whole = read_floats(tensor.source, read_span, 0, experts * rows)
        for start, stop in ((0, 1), (rows - 1, rows + 2), (1, experts * rows - 1)):
            np.testing.assert_array_equal(whole[start:stop], read_floats(tensor.source, read_span, start, stop))
        assert 1 == len(tensor.source.spans())


@pytest.mark.parametrize(
    ("modules", "targets", "hf_class", "said"),
    [
        (["experts.base_layer", "experts"], _BOTH[:1], "MixtralForCausalLM", "2 pairs for 1 parameters"),
        (["experts"], _BOTH, "MixtralForCausalLM", "1 pairs for 2 parameters"),
        (["experts"], _BOTH[1:], "GptOssForCausalLM", "keeps experts in another form"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, modules: list[str], targets: list[str], hf_class: str, said: str
) -> None:
    """Another number of pairs than of parameters, or a base whose experts are fused as well."""
    pairs = {f"{_BLOCK}.{module}": fused_pair(_HIDDEN, 96, RANK, 3) for module in modules}
    files = adapter_of(tmp_path / "adapter", pairs, target_parameters=targets)

    with pytest.raises(UnsupportedError, match=said) as caught:
        plan_adapter(files, bases(tmp_path, hf_class)[0])

    assert "ADAPTER" == caught.value.code
    assert "merge" in str(caught.value)


def test_rows_are_divided_evenly(tmp_path: Path) -> None:
    """A row that is neither of gate nor of up is not lost."""
    pairs = {f"{_BLOCK}.experts": fused_pair(193, _HIDDEN, RANK, 3)}
    files = adapter_of(tmp_path / "adapter", pairs, target_parameters=_BOTH[:1])

    with pytest.raises(UnsupportedError, match="193 rows for 2 matrices"):
        plan_adapter(files, bases(tmp_path, "MixtralForCausalLM")[0])


@pytest.mark.parametrize(
    ("experts", "module", "said"),
    [
        (3, "block_sparse_moe.switch_mlp.down_proj", "3 experts, 4 in the base model"),
        (4, "mlp.switch_mlp.other_proj", "keeps experts in another form"),
    ],
)
def test_stacks_of_another_base_are_refused(tmp_path: Path, experts: int, module: str, said: str) -> None:
    """Another number of experts, or a matrix that the base does not have."""
    directory = tmp_path / "adapter"
    write_adapter(directory, {}, peft_type=None, lora_parameters={"rank": RANK, "scale": 2.5})
    (directory / "adapter_model.safetensors").unlink()
    halves = {"a": (experts, RANK, 96), "b": (experts, _HIDDEN, RANK)}
    tensors = {f"model.layers.1.{module}.lora_{half}": np.ones(shape, np.float32) for half, shape in halves.items()}
    save_file(tensors, directory / "adapters.safetensors")

    with pytest.raises(UnsupportedError, match=said):
        plan_adapter(adapter_files(directory), bases(tmp_path, "MixtralForCausalLM")[0])


def test_rank_is_that_of_each_expert(tmp_path: Path) -> None:
    """As many ranks as the configuration says, times the experts."""
    files = adapter_of(
        tmp_path / "adapter",
        {f"{_BLOCK}.experts": random_pair(_HIDDEN, 96, RANK)},
        target_parameters=_BOTH[1:],
    )

    with pytest.raises(InputError, match="says 3 for each expert"):
        plan_adapter(files, bases(tmp_path, "MixtralForCausalLM")[0])
