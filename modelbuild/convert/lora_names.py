"""The tensors of an adapter by the modules they belong to, and the files of an adapter.

Source: PEFT (how adapters are saved) and mlx-lm, October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from modelbuild.convert.checkpoint import ADAPTER_CONFIG, Checkpoint
from modelbuild.convert.lora_pairs import LowRank
from modelbuild.convert.name_list import list_names
from modelbuild.convert.planned import Source, Stored
from modelbuild.convert.transforms import Reshaped, Transposed
from modelbuild.errors import InputError, printable
from modelbuild.formats.files import does_exist, is_regular
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

#: What PEFT and mlx-lm call the weights of an adapter, in this order of preference.
WEIGHT_NAMES = ("adapter_model.safetensors", "adapters.safetensors")
_CARD = "README.md"
_PREFIX = "base_model.model."
#: A pair's half; between it and `.weight` an unsaved adapter has its name.
_PEFT = late_pattern(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight", re.DOTALL)
_PEFT_EMBEDDING = late_pattern(r"(.+)\.lora_embedding_([AB])(?:\.[^.]+)?", re.DOTALL)
#: How mlx-lm calls the experts of a block, and what embeddings of tokens are called.
_SWITCH = ".switch_mlp."
_EMBEDDINGS = frozenset({"embed_tokens", "embed_in", "tok_embeddings", "word_embeddings", "wte"})
_MLX = late_pattern(r"(.+)\.lora_([ab])", re.DOTALL)


@record
class AdapterTensors:
    """pairs: changes by the name of the tensor they change. norms: whole norms, which some tools add."""

    pairs: Mapping[str, LowRank]
    norms: Mapping[str, Source]


def adapter_files(directory: Path) -> Checkpoint:
    """The files of an adapter directory that count; InputError when it is none.

    Codes: CONFIG without adapter_config.json, PICKLE when the weights are a pickle, ENTRY without weights.
    """
    names = (ADAPTER_CONFIG, *WEIGHT_NAMES, _CARD)
    found = {name: directory / name for name in names if is_regular(directory / name)}
    if ADAPTER_CONFIG not in found:
        message = f"open {ADAPTER_CONFIG}: no such file or directory"
        raise InputError("CONFIG", message, path=directory, hint="is this the directory of an adapter?")
    weights = next((name for name in WEIGHT_NAMES if name in found), None)
    if weights is None:
        raise _no_weights(directory)
    return Checkpoint(
        {name: path for name, path in found.items() if name not in WEIGHT_NAMES or name == weights}, str(directory)
    )


def _no_weights(directory: Path) -> InputError:
    if does_exist(directory / "adapter_model.bin"):
        message = "the weights are a PyTorch pickle (adapter_model.bin), which can run code and is not read"
        return InputError("PICKLE", message, path=directory, hint="save the adapter as safetensors first")
    return InputError(
        "ENTRY", f"no {WEIGHT_NAMES[0]} in the directory", path=directory, hint="is the download complete?"
    )


def read_pairs(tensors: Iterable[StoredTensor], origin: str) -> AdapterTensors:
    """All pairs in the order of their first halves; one InputError that lists what is no pair, lone or unfit."""
    halves: dict[str, dict[str, StoredTensor]] = {}
    norms: dict[str, Source] = {}
    kinds: dict[str, str] = {}
    trouble: list[str] = []
    for tensor in tensors:
        module, half, kind = _parse(tensor.name)
        if half:
            if half in halves.setdefault(module, {}):
                trouble.append(
                    f"{printable(tensor.name)}: a second half of this kind; only one adapter can be in a file"
                )
            halves[module][half] = tensor
            kinds[module] = kind
        elif kind == "norm":
            norms[f"{module}.weight"] = Stored(tensor)
        elif kind != "base":
            trouble.append(f"{printable(tensor.name)}: {_advice(tensor.name)}")
    trouble += [line for module, pair in halves.items() for line in _faults(module, pair, kinds[module])]
    if trouble:
        listed = "\n".join(list_names(trouble, "  "))
        raise InputError("ADAPTER", f"tensors that cannot be part of an adapter:\n{listed}", path=origin)
    pairs = {f"{module}.weight": _pair(module, pair, kinds[module]) for module, pair in halves.items()}
    return AdapterTensors(pairs, norms)


def _parse(name: str) -> tuple[str, str, str]:
    """Module, half (A or B, "" for none) and kind of a tensor."""
    plain = name.removeprefix(_PREFIX)
    for pattern, kind in ((_PEFT, "plain"), (_PEFT_EMBEDDING, "embedding"), (_MLX, "mlx")):
        match = pattern.fullmatch(plain)
        if match is not None:
            return match[1], match[2].upper(), kind
    if plain.endswith(".base_layer.weight"):
        return plain, "", "base"
    if plain.endswith(".weight") and ("_layernorm" in plain or ".norm" in plain):
        return plain.removesuffix(".weight"), "", "norm"
    return plain, "", ""


def _advice(name: str) -> str:
    if "lora_magnitude_vector" in name:
        return "a part of DoRA"
    if name.endswith((".embed_tokens.weight", ".lm_head.weight", ".wte.weight")):
        return "a whole matrix, trained for new tokens; merge the adapter into its base model"
    return "neither half of a pair; merge the adapter into its base model"


def _faults(module: str, pair: Mapping[str, StoredTensor], kind: str) -> list[str]:
    name = printable(module)
    if len(pair) < 2:
        return [f"{name}: lora_{'B' if 'A' in pair else 'A'} is missing"]
    a, b = pair["A"].shape, pair["B"].shape
    if kind == "mlx" and _SWITCH in module and len(b) == 3:
        ranks = (b[0], b[2])
        do_fit = a[:2] == ranks if len(a) == 3 else len(a) == 2 and a[0] == prod(ranks)
        return [] if do_fit and 0 not in b else [f"{name}: {list(a)} and {list(b)} are no stacks of one rank"]
    if len(a) != 2 or len(b) != 2:
        return [f"{name}: matrices are expected, found {list(a)} and {list(b)}"]
    ranks = (a[1], b[0]) if kind == "mlx" else (a[0], b[1])
    if ranks[0] != ranks[1]:
        return [f"{name}: A has the rank {ranks[0]}, B has the rank {ranks[1]}"]
    return []


def _pair(module: str, pair: Mapping[str, StoredTensor], kind: str) -> LowRank:
    """The change of the stored tensor; of an embedding it is (B A) transposed, because B makes its columns."""
    a, b = Stored(pair["A"]), Stored(pair["B"])
    if len(b.shape) == 3:  # experts of mlx-lm, whose matrices stand as in PEFT
        return LowRank(Reshaped(a, (b.shape[0], b.shape[2], a.shape[-1])), b, module)
    if kind == "mlx" and module.rpartition(".")[2] in _EMBEDDINGS:
        return LowRank(b, a, module)
    if kind == "plain":
        return LowRank(a, b, module)
    if kind == "embedding":
        return LowRank(Transposed(b), Transposed(a), module)
    return LowRank(Transposed(a), Transposed(b), module)
