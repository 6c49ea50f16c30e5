"""Adapters: strength of each module, forms of files, what fits the base, what no adapter file can express."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.convert import Checkpoint
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import AdapterBase, base_of_checkpoint, base_of_header
from modelbuild.convert.lora_names import adapter_files
from modelbuild.errors import InputError, UnsupportedError
from modelbuild.formats.gguf.reader import open_gguf
from tests.adapters import ALPHA, RANK, changes_of, random_pair, values_of, write_adapter
from tests.checkpoints import convert, keys_of, llama_config, llama_tensors, write_checkpoint
from tests.family_checkpoints import write_family_checkpoint
from tests.llama_runtime import llama
from tests.written import write_conversion

_LAYER = "model.layers.0."
DOWN, OTHER_DOWN, UP, V = (
    f"{_LAYER}mlp.down_proj",
    "model.layers.1.mlp.down_proj",
    f"{_LAYER}mlp.up_proj",
    f"{_LAYER}self_attn.v_proj",
)
PAIR = {DOWN: random_pair(32, 48)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> AdapterBase:
    """A Llama of two blocks."""
    return base_of_checkpoint(Checkpoint.of_directory(write_checkpoint(tmp_path_factory.mktemp("base"))))


def change(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    return (b @ a) * np.float32(scale)


# -- strength ----------------------------------------------------------------------------------------------------------


def test_fraction_of_alpha_is_kept(tmp_path: Path, base: AdapterBase) -> None:
    """Alpha is a fraction in the file as it is in the configuration, and matrices keep their bytes."""
    adapter = plan_adapter(write_adapter(tmp_path, PAIR, lora_alpha=12.75), base)

    keys = keys_of(adapter)
    assert ("llama", "adapter", "lora", 12.75) == (
        keys["general.architecture"],
        keys["general.type"],
        keys["adapter.type"],
        keys["adapter.lora.alpha"],
    )
    np.testing.assert_array_equal(PAIR[DOWN][0], values_of(adapter)["blk.0.ffn_down.weight.lora_a"])
    np.testing.assert_array_equal(PAIR[DOWN][1], values_of(adapter)["blk.0.ffn_down.weight.lora_b"])


def test_rank_stabilized_strength_is_folded_into_alpha(tmp_path: Path, base: AdapterBase) -> None:
    """rsLoRA divides alpha by the root of the rank; the runtime by the rank."""
    adapter = plan_adapter(write_adapter(tmp_path, PAIR, use_rslora=True), base)

    np.testing.assert_allclose(
        changes_of(adapter)["blk.0.ffn_down.weight"], change(*PAIR[DOWN], ALPHA / RANK**0.5), rtol=1e-5
    )


@pytest.mark.parametrize("stabilized", [False, True])
def test_patterns_change_ranks_and_strengths(tmp_path: Path, base: AdapterBase, stabilized: bool) -> None:
    """Names fit at a dot, the first that fits counts; each module gets its own alpha by its own rank."""
    pairs = {
        DOWN: random_pair(32, 48, rank=6),
        OTHER_DOWN: random_pair(32, 48, rank=2),
        UP: random_pair(48, 32),
        V: random_pair(16, 32),
    }
    files = write_adapter(
        tmp_path,
        pairs,
        use_rslora=stabilized,
        rank_pattern={"0.mlp.down_proj": 6, "down_proj": 2},
        alpha_pattern={r"^model\.layers\.1\.mlp\.down_proj$": 1.5, "v_proj": 2, "_proj": 99},
    )

    changes = changes_of(plan_adapter(files, base))

    def scale(alpha: float, rank: int) -> float:
        return alpha / (rank**0.5 if stabilized else rank)

    for name, pair, wanted in (
        ("blk.0.ffn_down.weight", pairs[DOWN], scale(ALPHA, 6)),
        ("blk.1.ffn_down.weight", pairs[OTHER_DOWN], scale(1.5, 2)),
        ("blk.0.ffn_up.weight", pairs[UP], scale(ALPHA, RANK)),
        ("blk.0.attn_v.weight", pairs[V], scale(2, RANK)),
    ):
        np.testing.assert_allclose(changes[name], change(*pair, wanted), rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("pattern", "does_fit"),
    [
        (f"^{DOWN}", True),
        ("^layers.0.mlp.down_proj", False),
        (r".*\.down_proj", True),
        (r"^.*\.mlp\.down_proj$", True),
        (rf".*\.{DOWN}", False),
    ],
)
def test_patterns_say_how_much_of_a_name_they_are(
    tmp_path: Path, base: AdapterBase, pattern: str, does_fit: bool
) -> None:
    """As expressions in the library: from the beginning of the name, or behind something."""
    adapter = plan_adapter(write_adapter(tmp_path, PAIR, alpha_pattern={pattern: 3 * ALPHA}), base)

    wanted = change(*PAIR[DOWN], ALPHA / RANK * (3 if does_fit else 1))
    np.testing.assert_allclose(changes_of(adapter)["blk.0.ffn_down.weight"], wanted, rtol=1e-5, atol=1e-6)


def test_scale_of_mlx_is_the_whole_factor(tmp_path: Path, base: AdapterBase) -> None:
    """Files of mlx-lm hold both matrices the other way round, and a scale that does not depend on the rank."""
    a, b = PAIR[DOWN]
    save_file(
        {f"{DOWN}.lora_a": np.ascontiguousarray(a.T), f"{DOWN}.lora_b": np.ascontiguousarray(b.T)},
        tmp_path / "adapters.safetensors",
    )
    settings = {"fine_tune_type": "lora", "lora_parameters": {"rank": RANK, "scale": 2.5, "dropout": 0.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))

    adapter = plan_adapter(adapter_files(tmp_path), base)

    np.testing.assert_allclose(changes_of(adapter)["blk.0.ffn_down.weight"], change(a, b, 2.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "layers", "factor"),
    [
        ({"scale": 2.5, "alpha": 9.0}, "lora_layers", 2.5 * 9 / RANK),
        ({"scale": 2.5, "alpha": 9.0}, "num_layers", 2.5),
        ({"scale": 2.5}, "lora_layers", 2.5),
        ({"alpha": 9.0}, "num_layers", 9 / RANK),
    ],
)
def test_alpha_of_mlx_counts_where_it_did(
    tmp_path: Path, base: AdapterBase, settings: dict[str, float], layers: str, factor: float
) -> None:
    """Adapters of its first months are told by the name they have for their layers."""
    a, b = PAIR[DOWN]
    save_file({f"{DOWN}.lora_a": a.T.copy(), f"{DOWN}.lora_b": b.T.copy()}, tmp_path / "adapters.safetensors")
    config = {"fine_tune_type": "lora", layers: 16, "lora_parameters": {"rank": RANK, "dropout": 0.0, **settings}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    adapter = plan_adapter(adapter_files(tmp_path), base)

    wanted = change(a, b, factor)
    np.testing.assert_allclose(changes_of(adapter)["blk.0.ffn_down.weight"], wanted, rtol=1e-5, atol=1e-6)


def test_embeddings_of_mlx_stand_the_other_way_round(tmp_path: Path) -> None:
    """Their first matrix has a row for each token."""
    directory = write_checkpoint(tmp_path / "base", llama_config(tie_word_embeddings=False), {
        **llama_tensors("F32"), "lm_head.weight": ("F32", (12, 32)),
    })  # fmt: skip
    b, a = random_pair(12, 32)[::-1]
    write_adapter(tmp_path / "adapter", {}, lora_parameters={"rank": RANK, "scale": 2.5})
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    names = {"model.embed_tokens.lora_a": b, "model.embed_tokens.lora_b": a}
    save_file(names, tmp_path / "adapter/adapters.safetensors")

    adapter = plan_adapter(adapter_files(tmp_path / "adapter"), base_of_checkpoint(Checkpoint.of_directory(directory)))

    values = values_of(adapter)
    np.testing.assert_array_equal(b, values["token_embd.weight.lora_a"])
    np.testing.assert_array_equal(a.T, values["token_embd.weight.lora_b"])


# -- forms -------------------------------------------------------------------------------------------------------------


def test_precision_of_the_file_is_kept_unless_said_otherwise(tmp_path: Path, base: AdapterBase) -> None:
    """Half precision stays what it is; F32 is made on demand."""
    halves = {name: (a.astype(np.float16), b.astype(np.float16)) for name, (a, b) in PAIR.items()}
    files = write_adapter(tmp_path, halves)

    assert {"F16"} == {tensor.type.name for tensor in plan_adapter(files, base).tensors}
    assert {"F32"} == {tensor.type.name for tensor in plan_adapter(files, base, "F32").tensors}


def test_names_of_unsaved_and_bare_models_are_understood(tmp_path: Path, base: AdapterBase) -> None:
    """The name of an adapter may stand between; models without a head have names without their prefix."""
    a, b = PAIR[DOWN]
    write_adapter(tmp_path, {})
    name = f"base_model.model.{DOWN.removeprefix('model.')}"
    save_file(
        {f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b, f"{name}.base_layer.weight": b @ a},
        tmp_path / "adapter_model.safetensors",
    )

    assert ["blk.0.ffn_down.weight.lora_a", "blk.0.ffn_down.weight.lora_b"] == [
        tensor.name for tensor in plan_adapter(adapter_files(tmp_path), base).tensors
    ]


@pytest.mark.llamacpp
def test_embeddings_change_by_looked_up_rows(tmp_path: Path) -> None:
    """An adapter of the embedding gives in real llama.cpp what adding it to the embedding gives."""
    directory = write_checkpoint(tmp_path / "base", llama_config(tie_word_embeddings=False), {
        **llama_tensors("F32"), "lm_head.weight": ("F32", (12, 32)),
    })  # fmt: skip
    a, b = random_pair(32, 12)
    write_adapter(tmp_path / "adapter", {})
    name = "base_model.model.model.embed_tokens"
    save_file(
        {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}, tmp_path / "adapter/adapter_model.safetensors"
    )
    adapter = plan_adapter(adapter_files(tmp_path / "adapter"), base_of_checkpoint(Checkpoint.of_directory(directory)))
    plain = write_conversion(convert(directory, float_type="F32"), tmp_path / "base.gguf")
    against_header = plan_adapter(adapter_files(tmp_path / "adapter"), base_of_header(open_gguf(plain)))
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"] += change(a, b, ALPHA / RANK).T
    save_file(weights, directory / "model.safetensors")

    with llama(write_conversion(convert(directory, float_type="F32"), tmp_path / "merged.gguf")) as model:
        wanted = model.logits([1, 4, 2])
    with llama(plain) as model:
        model.use_adapter(write_conversion(adapter, tmp_path / "adapter.gguf"))
        found = model.logits([1, 4, 2])

    assert adapter.tensors == against_header.tensors
    np.testing.assert_allclose(found, wanted, atol=2e-2, rtol=0)


def _embedding_adapter(directory: Path, module: str, rows: int, columns: int) -> Checkpoint:
    a, b = random_pair(columns, rows)
    write_adapter(directory, {})
    name = f"base_model.model.{module}"
    save_file({f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}, directory / "adapter_model.safetensors")
    return adapter_files(directory)


def test_embedding_that_is_the_output_cannot_be_changed(tmp_path: Path, base: AdapterBase) -> None:
    """Llama.cpp aborts at the output of such a model."""
    files = _embedding_adapter(tmp_path / "adapter", "model.embed_tokens", 12, 32)
    file = write_conversion(convert(write_checkpoint(tmp_path / "base")), tmp_path / "base.gguf")
    for tied in (base, base_of_header(open_gguf(file))):
        with pytest.raises(UnsupportedError, match="output of its base as well") as caught:
            plan_adapter(files, tied)
        assert "ADAPTER" == caught.value.code


@pytest.mark.parametrize(
    ("hf_class", "module"),
    [
        ("JinaBertModel", "embeddings.word_embeddings"),
        ("LlamaForCausalLM", "model.embed_tokens"),
        ("TalkieForCausalLM", "model.embed"),
    ],
)
def test_embedding_that_is_no_output_can_be_changed(tmp_path: Path, hf_class: str, module: str) -> None:
    """Of a model that has none, or one of its own, under whatever name."""
    base = base_of_checkpoint(Checkpoint.of_directory(write_family_checkpoint(tmp_path / "base", hf_class)))
    files = _embedding_adapter(tmp_path / "adapter", module, 288, 64)

    assert ["token_embd.weight.lora_a", "token_embd.weight.lora_b"] == [
        tensor.name for tensor in plan_adapter(files, base).tensors
    ]


def test_pairs_stand_as_in_the_file(tmp_path: Path, base: AdapterBase) -> None:
    """In the order of the data, which differs from that of names where precisions differ."""
    (a, b), (c, d) = random_pair(32, 48), random_pair(16, 32)
    files = write_adapter(tmp_path, {DOWN: (a.astype(np.float16), b.astype(np.float16)), V: (c, d)})

    names = [tensor.name for tensor in plan_adapter(files, base).tensors]

    assert ["blk.0.attn_v.weight", "blk.0.ffn_down.weight"] == [name.rpartition(".")[0] for name in names[::2]]


def test_types_that_a_family_forces_concern_adapters_as_well(tmp_path: Path) -> None:
    """The indexer of MiniMax M3 is never narrowed, nor is a change of it."""
    directory = write_family_checkpoint(tmp_path / "base", "MiniMaxM3SparseForCausalLM")
    weights = load_file(directory / "model.safetensors")
    module = next(name for name in weights if name.endswith("index_q_proj.weight")).removesuffix(".weight")
    files = write_adapter(tmp_path / "adapter", {module: random_pair(*weights[f"{module}.weight"].shape)})

    adapter = plan_adapter(files, base_of_checkpoint(Checkpoint.of_directory(directory)), "F16")

    assert {"F32"} == {tensor.type.name for tensor in adapter.tensors}


def test_whole_norms_are_passed_on(tmp_path: Path, base: AdapterBase) -> None:
    """Some tools add the norms of the model they compared; they go first, as the reference has them."""
    a, b = PAIR[DOWN]
    write_adapter(tmp_path, {})
    save_file(
        {
            f"base_model.model.{DOWN}.lora_A.weight": a,
            f"base_model.model.{DOWN}.lora_B.weight": b,
            "base_model.model.model.layers.1.input_layernorm.weight": np.ones(32, np.float32),
        },
        tmp_path / "adapter_model.safetensors",
    )

    names = [tensor.name for tensor in plan_adapter(adapter_files(tmp_path), base).tensors]

    assert ["blk.1.attn_norm.weight", "blk.0.ffn_down.weight.lora_a", "blk.0.ffn_down.weight.lora_b"] == names


def test_invocation_tokens_are_kept(tmp_path: Path, base: AdapterBase) -> None:
    """What switches an activated adapter on is part of the file."""
    adapter = plan_adapter(write_adapter(tmp_path, PAIR, alora_invocation_tokens=[3, 1]), base)

    assert [3, 1] == keys_of(adapter)["adapter.alora.invocation_tokens"]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "OLoRA"}, "OLoRA"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeated"),
        ({"trainable_token_indices": [1]}, "single tokens"),
        ({"use_qalora": True}, "QALoRA"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"kasa_config": {"beta": 1e-4}}, "KaSA"),
    ],
)
def test_what_an_adapter_file_cannot_express_is_refused(
    tmp_path: Path, base: AdapterBase, config: dict[str, object], said: str
) -> None:
    """Each of them by its name, with what to do."""
    with pytest.raises(UnsupportedError) as caught:
        plan_adapter(write_adapter(tmp_path, PAIR, **config), base)

    assert "ADAPTER" == caught.value.code
    assert said in str(caught.value)
    assert "merge" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"r": None},
        {"r": "8"},
        {"r": 8},
        {"lora_alpha": None},
        {"lora_alpha": 0},
        {"lora_alpha": float("nan")},
        {"rank_pattern": {"(a+)+": 3}},
        {"rank_pattern": ["down_proj"]},
        {"rank_pattern": {"down_proj": -1}},
        {"alpha_pattern": {"down_proj": "x"}},
        {"alora_invocation_tokens": [-1]},
        {"invocation_string": "<|start|>"},
    ],
)
def test_malformed_configurations_are_refused(tmp_path: Path, base: AdapterBase, config: dict[str, object]) -> None:
    """Numbers out of range, expressions instead of names, ranks that the matrices do not have."""
    with pytest.raises(InputError) as caught:
        plan_adapter(write_adapter(tmp_path, PAIR, **config), base)

    assert caught.value.code in ("CONFIG", "ADAPTER", "JSON")
    assert "adapter_config.json" in str(caught.value)


def test_tensors_that_do_not_fit_are_listed_at_once(tmp_path: Path, base: AdapterBase) -> None:
    """A module the base does not have and one of another shape."""
    pairs = {DOWN: random_pair(32, 40), "lm_head": random_pair(12, 32), UP: random_pair(48, 32)}
    with pytest.raises(InputError) as caught:
        plan_adapter(write_adapter(tmp_path, pairs), base)

    text = str(caught.value)
    assert "lm_head.weight: not in the base model" in text
    assert f"{DOWN}.weight: [32, 40], [32, 48] in the base model" in text
    assert UP not in text


def test_header_of_the_base_is_checked_likewise(tmp_path: Path) -> None:
    """The same against a GGUF, with its names."""
    file = write_conversion(convert(write_checkpoint(tmp_path / "base")), tmp_path / "base.gguf")
    pairs = {
        DOWN: random_pair(32, 40),
        "lm_head": random_pair(12, 32),
        "model.layers.7.mlp.up_proj": random_pair(48, 32),
    }
    with pytest.raises(InputError) as caught:
        plan_adapter(write_adapter(tmp_path / "adapter", pairs), base_of_header(open_gguf(file)))

    assert "model.layers.7.mlp.up_proj" in str(caught.value)
    with pytest.raises(InputError) as caught:
        plan_adapter(
            write_adapter(tmp_path / "adapter", dict(list(pairs.items())[:2])), base_of_header(open_gguf(file))
        )
    assert "blk.0.ffn_down.weight: [32, 40], [32, 48] in the base model" in str(caught.value)
    assert "output.weight: not in the base model" in str(caught.value)


def _stored(name: str, shape: tuple[int, ...] = (RANK, 48)) -> dict[str, np.ndarray]:
    return {f"base_model.model.{name}": np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (_stored(f"{DOWN}.lora_A.weight"), "lora_B is missing"),
        (_stored(f"{DOWN}.lora_A.weight") | _stored(f"{DOWN}.lora_B.weight", (32, 4)), "rank"),
        (_stored(f"{DOWN}.lora_A.weight") | _stored(f"{DOWN}.lora_B.weight", (32, 3, 1)), "matrices are expected"),
        (_stored(f"{DOWN}.lora_A.one.weight") | _stored(f"{DOWN}.lora_A.two.weight"), "second half"),
        (_stored(f"{DOWN}.lora_magnitude_vector"), "DoRA"),
        (_stored("model.embed_tokens.weight"), "whole matrix"),
        (_stored("model.x"), "neither half"),
        (_stored("x.switch_mlp.y.lora_a", (4, 2, 8)) | _stored("x.switch_mlp.y.lora_b", (4, 8, 3)), "no stacks"),
        (_stored("x.switch_mlp.y.lora_a", (4, 8)) | _stored("x.switch_mlp.y.lora_b", (4, 8, 3)), "no stacks"),
    ],
)
def test_odd_tensors_are_refused(tmp_path: Path, base: AdapterBase, tensors: dict[str, np.ndarray], said: str) -> None:
    """Lone halves, unequal ranks, several adapters, whole matrices."""
    write_adapter(tmp_path, {})
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError) as caught:
        plan_adapter(adapter_files(tmp_path), base)

    assert "ADAPTER" == caught.value.code
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("names", "code"),
    [((), "CONFIG"), (("adapter_config.json",), "ENTRY"), (("adapter_config.json", "adapter_model.bin"), "PICKLE")],
)
def test_incomplete_directories_are_refused(tmp_path: Path, names: tuple[str, ...], code: str) -> None:
    """Without configuration, without weights, or with a pickle."""
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        adapter_files(tmp_path)

    assert code == caught.value.code
