"""Every family's table against independent judges: real llama.cpp with its names and shapes, and gguf's name maps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import gguf
import pytest

from modelbuild.convert.families import all_families
from modelbuild.convert.family import TensorRule
from tests.checkpoints import convert
from tests.family_checkpoints import CONFIGS, write_family_checkpoint, write_gguf

#: Loads the files named on standard input and continues a text with each; a process of its own, because llama.cpp
#: aborts on some faults.
_LOADER = """
import sys, xllamacpp
for line in sys.stdin:
    path, kind = line.rstrip("\\n").split("\\t")
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_gpu_layers, params.cpuparams.n_threads, params.warmup = 64, 0, 1, False
    if kind == "encoder":  # the checkpoints do not say how to make one vector of many
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    try:
        server = xllamacpp.Server(params)
        if params.embedding:
            answer = server.handle_embeddings({"input": "abc abc"})
        else:
            answer = server.handle_completions({"prompt": "abc abc", "n_predict": 2, "temperature": 0})
        done = "choices" in answer or "embedding" in str(answer)
        print("\\nverdict:", "ok" if done else str(answer)[:80], flush=True)
    except Exception as error:
        print("\\nverdict: refused", flush=True)
"""
#: Classes that look both ways: they give one vector for a text and continue none.
_ENCODERS = (
    "Gemma3TextModel",
    "LlamaBidirectionalModel",
    "DreamModel",
    "RND1",
    "EuroBertModel",
    "JinaBertModel",
    "LLaDAModelLM",
    "LLaDAMoEModelLM",
    "Lfm2BidirectionalModel",
)
#: Classes whose files, of whatever converter, the runtime cannot use: PLM's values have a shape that its cache refuses;
#: of PLaMo 2 it rotates no dimension, because the first block does not attend, and never ends.
_BROKEN_THERE = ("PLMForCausalLM", "Plamo2ForCausalLM")
#: Where the converter gives names beside its map: fused or split tensors, and tensors made under another name.
_ELSEWHERE = ("attn_qkv", "attn_k_b", "attn_v_b", "attn_gate", ".scale", "nextn.", "altup_", "cls.")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What llama.cpp says of the converted checkpoint of each class."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is the judge here")
    directory = tmp_path_factory.mktemp("families")
    paths: dict[str, Path] = {}
    for name in set(CONFIGS).difference(_BROKEN_THERE):
        paths[name] = directory / f"{name}.gguf"
        write_gguf(convert(write_family_checkpoint(directory / name, name), float_type="F16"), paths[name])
    found: dict[str, str] = {}
    while len(found) < len(paths):
        left = [name for name in paths if name not in found]
        done = subprocess.run(
            [sys.executable, "-c", _LOADER],
            input="".join(f"{paths[name]}\t{'encoder' if name in _ENCODERS else 'decoder'}\n" for name in left),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        lines = done.stdout.splitlines()  # a debugger may have written among them when the process ended
        answers = [line.removeprefix("verdict: ") for line in lines if line.startswith("verdict: ")]
        found.update(zip(left, answers, strict=False))
        if len(answers) < len(left):
            found[left[len(answers)]] = f"llama.cpp ended with {done.returncode}"
    return found


@pytest.mark.llamacpp
@pytest.mark.parametrize("hf_class", [name for name in CONFIGS if name not in _BROKEN_THERE])
def test_converted_checkpoint_runs_in_llama_cpp(verdicts: Mapping[str, str], hf_class: str) -> None:
    """All tensors are there, with the names and shapes it expects, none is too many, and a text can be continued."""
    assert "ok" == verdicts[hf_class]


def _rules() -> list[tuple[str, TensorRule]]:
    pairs = []
    for family in all_families():
        if isinstance(family.architecture, str) and family.architecture in gguf.MODEL_ARCH_NAMES.values():
            pairs += [(family.architecture, rule) for rule in family.tensors]
    return pairs


def _name_map(architecture: gguf.MODEL_ARCH) -> gguf.TensorNameMap:
    """The names of one architecture; making it changes what the next one is made from, which is undone."""
    before = dict(gguf.TensorNameMap.block_mappings_cfg)
    found = gguf.get_tensor_name_map(architecture, 1)
    gguf.TensorNameMap.block_mappings_cfg.clear()
    gguf.TensorNameMap.block_mappings_cfg.update(before)
    return found


def test_names_agree_with_the_maps_of_gguf() -> None:
    """Wherever gguf knows a stored name under an architecture, the table gives the same GGUF name."""
    ids = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    maps = {name: _name_map(ids[name]) for name in sorted({name for name, _ in _rules()})}
    wrong = []
    for architecture, rule in _rules():
        if len(rule.targets) > 1:  # split here, kept in one by the maps
            continue
        source = rule.source.replace(".{e}.", ".").format(b=0, e=0).removesuffix(".weight").removesuffix(".bias")
        theirs = maps[architecture].get_name(source, try_suffixes=(".weight", ".bias"))
        ours = {target.format(b=0).removesuffix(".weight").removesuffix(".bias") for target in rule.targets}
        if theirs is not None and theirs not in ours and not any(part in name for part in _ELSEWHERE for name in ours):
            wrong.append(f"{architecture}: {source} is {theirs}, not {' or '.join(sorted(ours))}")

    assert [] == wrong
