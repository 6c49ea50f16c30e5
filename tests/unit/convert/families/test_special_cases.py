"""What single families do beyond their tables; where it went wrong, a model would load and compute something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.convert.scalars import zero_rows
from modelbuild.errors import InputError, UnsupportedError
from modelbuild.formats.safetensors import StoredTensor
from tests.adapters import values_of
from tests.checkpoints import convert, keys_of
from tests.family_checkpoints import write_family_checkpoint


def configure(directory: Path, **settings: object) -> None:
    """Other settings; None removes one."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_bamba_moves_rotated_rows_alone(tmp_path: Path) -> None:
    """Half of each head is rotated: its rows become pairs, the others stay in their places."""
    directory = write_family_checkpoint(tmp_path / "model", "BambaForCausalLM")
    stored = load_file(directory / "model.safetensors")["model.layers.1.self_attn.q_proj.weight"]

    found = values_of(convert(directory, float_type="F32"))["blk.1.attn_q.weight"]

    heads, turned = stored.reshape(4, 16, 64), found.reshape(4, 16, 64)
    np.testing.assert_array_equal(heads[:, 8:], turned[:, 8:])
    np.testing.assert_array_equal(heads[:, [0, 4, 1, 5, 2, 6, 3, 7]], turned[:, :8])


def test_granite_without_shared_experts_has_no_width_for_them(tmp_path: Path) -> None:
    """The configuration says 0, which the runtime would take for a width."""
    directory = write_family_checkpoint(tmp_path / "model", "GraniteMoeForCausalLM")
    configure(directory, shared_intermediate_size=0)

    assert "granitemoe.expert_shared_feed_forward_length" not in keys_of(convert(directory))


def test_gemma3_keeps_an_output_of_its_own(tmp_path: Path) -> None:
    """Gemma 1 and 2 are always tied in the runtime; Gemma 3 need not be."""
    directory = write_family_checkpoint(tmp_path / "model", "Gemma3ForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = np.ones_like(tensors["model.embed_tokens.weight"])
    save_file(tensors, directory / "model.safetensors")

    found = values_of(convert(directory, float_type="F32"))["output.weight"]

    assert 1 == found.min() == found.max()


def test_gemma3_caps_before_its_window(tmp_path: Path) -> None:
    """Keys stand in the reference's order, because order is part of the bytes."""
    directory = write_family_checkpoint(tmp_path / "model", "Gemma3ForCausalLM")
    configure(directory, final_logit_softcapping=20.0)

    names = list(keys_of(convert(directory)))

    assert names.index("gemma3.final_logit_softcapping") + 1 == names.index("gemma3.attention.sliding_window")


def test_gemma_with_byte_level_tokens_says_nothing_of_blanks(tmp_path: Path) -> None:
    """The setting belongs to SentencePiece."""
    directory = write_family_checkpoint(tmp_path / "model", "Gemma3ForCausalLM")

    keys = keys_of(convert(directory))

    assert "gpt2" == keys["tokenizer.ggml.model"]
    assert "tokenizer.ggml.add_space_prefix" not in keys


def test_gpt_neox_rotates_the_share_it_says(tmp_path: Path) -> None:
    """RedPajama rotates all dimensions of a head, Pythia a quarter."""
    directory = write_family_checkpoint(tmp_path / "model", "GPTNeoXForCausalLM")
    assert 4 == keys_of(convert(directory))["gptneox.rope.dimension_count"]

    configure(directory, rotary_pct=1.0)

    assert 16 == keys_of(convert(directory))["gptneox.rope.dimension_count"]


def test_phi3_tells_its_first_context_among_its_rotary_settings(tmp_path: Path) -> None:
    """Configurations of transformers 5 do; older ones have it beside them."""
    directory = write_family_checkpoint(tmp_path / "model", "Phi3ForCausalLM")
    rope = {"rope_type": "default", "rope_theta": 1e4, "original_max_position_embeddings": 64}
    configure(directory, rope_parameters=rope, original_max_position_embeddings=None)

    assert 64 == keys_of(convert(directory))["phi3.rope.scaling.original_context_length"]


def test_internlm_ends_with_the_turn_where_only_the_settings_name_it(tmp_path: Path) -> None:
    """Its published checkpoints have no tokenizer.json."""
    directory = write_family_checkpoint(tmp_path / "model", "InternLM2ForCausalLM")
    decoder = {"7": {"content": "<|im_end|>", "special": True}, "8": {"content": "<|looks|>", "special": False}}
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))

    keys = keys_of(convert(directory))

    assert 7 == keys["tokenizer.ggml.eos_token_id"]
    assert [3, 4] == keys["tokenizer.ggml.token_type"][7:9]


def test_falcon_h1_multiplies_each_part_of_the_mixer(tmp_path: Path) -> None:
    """Gate, input, both state matrices and the time steps have a multiplier of their own, and one in common."""
    directory = write_family_checkpoint(tmp_path / "model", "FalconH1ForCausalLM")
    stored = load_file(directory / "model.safetensors")["model.layers.0.mamba.in_proj.weight"]

    found = values_of(convert(directory, float_type="F32"))["blk.0.ssm_in.weight"]

    parts = np.repeat([0.5, 0.75, 1.25, 1.5, 2.0], [64, 64, 32, 32, 4]) * 1.25
    np.testing.assert_allclose(found, stored * parts[:, None], rtol=1e-6)


def test_sarvam_takes_the_mean_of_its_correction_away(tmp_path: Path) -> None:
    """The original does so when it loads; the choice of experts depends on it."""
    directory = write_family_checkpoint(tmp_path / "model", "SarvamMoEForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.1.mlp.gate.expert_bias"] = np.array([1, 2, 3, 6], np.float32)
    save_file(tensors, directory / "model.safetensors")

    found = values_of(convert(directory, float_type="F32"))["blk.1.exp_probs_b.bias"]

    assert [-2, -1, 0, 3] == found.tolist()


def test_bailing_with_a_normalised_output_is_refused(tmp_path: Path) -> None:
    """Its output matrix would be wrong, and nobody would see why."""
    directory = write_family_checkpoint(tmp_path / "model", "BailingMoeForCausalLM")
    configure(directory, norm_head=True)

    with pytest.raises(UnsupportedError, match="normalised over the whole vocabulary"):
        convert(directory)


def test_experts_that_differ_between_layers_are_refused(tmp_path: Path) -> None:
    """The runtime has one number for all layers."""
    directory = write_family_checkpoint(tmp_path / "model", "HunYuanMoEV1ForCausalLM")
    configure(directory, moe_topk=[2, 1])

    with pytest.raises(InputError, match="the same number for every layer"):
        convert(directory)


def test_granite_without_experts_has_the_shared_width(tmp_path: Path) -> None:
    """The part that experts would share is then the feed-forward part."""
    directory = write_family_checkpoint(tmp_path / "model", "GraniteMoeHybridForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    configure(directory, num_local_experts=0, num_experts_per_tok=0)
    save_file({k: v for k, v in tensors.items() if "block_sparse_moe" not in k}, directory / "model.safetensors")

    conversion = convert(directory)

    assert 48 == keys_of(conversion)["granitehybrid.feed_forward_length"]
    shapes = {tensor.name: tensor.source.shape for tensor in conversion.tensors}
    assert [(48, 64), (48, 64), (64, 48)] == [shapes[f"blk.0.ffn_{name}.weight"] for name in ("gate", "up", "down")]


def test_granite_with_attention_alone_is_plain_granite(tmp_path: Path) -> None:
    """A file of the hybrid architecture would be given a state that it does not have."""
    directory = write_family_checkpoint(tmp_path / "model", "GraniteMoeHybridForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    heads = {k.replace("layers.1", "layers.0"): v for k, v in tensors.items() if "layers.1.self_attn" in k}
    configure(directory, layer_types=["attention", "attention"])
    kept = {name: values for name, values in tensors.items() if ".mamba." not in name}
    save_file({**kept, **heads}, directory / "model.safetensors")

    assert "granitemoe" == keys_of(convert(directory))["general.architecture"]


@pytest.mark.parametrize("hf_class", ["ExaoneMoEForCausalLM", "Exaone4_5_ForConditionalGeneration"])
def test_exaone_block_for_further_tokens_follows_the_others(tmp_path: Path, hf_class: str) -> None:
    """It stands beside the blocks in the checkpoint and after them in the file."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    tensors = load_file(directory / "model.safetensors")
    plain = {tensor.name for tensor in convert(directory).tensors}
    names = {
        "eh_proj": "mtp.fc",
        "enorm": "mtp.pre_fc_norm_embedding",
        "hnorm": "mtp.pre_fc_norm_hidden",
        "shared_head.norm": "mtp.norm",
    }
    moved = {}
    for name, values in tensors.items():
        part = name.removeprefix("model.layers.4.").removesuffix(".weight")
        outside = f"{names.get(part, f'mtp.layers.0.{part}')}.weight"
        moved[outside if name.startswith("model.layers.4.") else name] = values
    save_file(moved, directory / "model.safetensors")

    assert plain == {tensor.name for tensor in convert(directory).tensors}


def test_grok_has_two_sets_of_names(tmp_path: Path) -> None:
    """The first port's names give the same tensors, but for the norm that its runtime knows by another name."""
    directory = write_family_checkpoint(tmp_path / "model", "GrokForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    plain = values_of(convert(directory, float_type="F32"))
    old = (
        ("model.embed_tokens.", "transformer.in_out_embed."),
        ("model.norm.", "transformer.rms_norm."),
        ("model.layers.", "transformer.decoder_layer."),
        (".self_attn.q_proj.", ".multi_head_attention.query."),
        (".self_attn.k_proj.", ".multi_head_attention.key."),
        (".self_attn.v_proj.", ".multi_head_attention.value."),
        (".self_attn.o_proj.", ".multi_head_attention.linear."),
        (".pre_attn_norm.", ".rms_norm."),
        (".post_attn_norm.", ".rms_norm_1."),
        (".pre_moe_norm.", ".rms_norm_2."),
        (".post_moe_norm.", ".rms_norm_3."),
        (".block_sparse_moe.gate.", ".router."),
        (".block_sparse_moe.experts.", ".moe."),
        (".w1.", ".linear."),
        (".w2.", ".linear_1."),
        (".w3.", ".linear_v."),
    )
    renamed = {}
    for name, values in tensors.items():
        for new, before in old:
            name = name.replace(new, before)
        renamed[name] = values
    save_file(renamed, directory / "model.safetensors")

    found = values_of(convert(directory, float_type="F32"))

    assert {name.replace("post_ffw_norm", "layer_output_norm") for name in plain} == set(found)
    for name, values in plain.items():
        np.testing.assert_array_equal(values, found[name.replace("post_ffw_norm", "layer_output_norm")])


def test_apertus_keeps_the_numbers_of_its_activation(tmp_path: Path) -> None:
    """They are stored as tensors, and the runtime wants them as keys, one for each block in order."""
    directory = write_family_checkpoint(tmp_path / "model", "ApertusForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.mlp.act_fn.beta"] = np.float32([0.5])
    tensors["model.layers.1.mlp.act_fn.beta"] = np.array(0.25, np.float16)
    save_file(tensors, directory / "model.safetensors")

    conversion = convert(directory)

    assert [0.5, 0.25] == keys_of(conversion)["xielu.beta"]
    assert not [tensor.name for tensor in conversion.tensors if "act_fn" in tensor.name]


@pytest.mark.parametrize(("zeros", "wanted"), [((), None), ((3, 270, 287), [270, 287])])
def test_minimax_never_says_rows_of_nothing(tmp_path: Path, zeros: tuple[int, ...], wanted: object) -> None:
    """Rows of zeros beyond the vocabulary proper, to which added tokens do not belong; one inside is a token."""
    directory = write_family_checkpoint(tmp_path / "model", "MiniMaxText01ForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"][list(zeros)] = -0.0
    save_file(tensors, directory / "model.safetensors")

    assert wanted == keys_of(convert(directory)).get("tokenizer.ggml.suppress_tokens")


def test_minimax_reads_the_rest_of_a_vocabulary_alone(tmp_path: Path) -> None:
    """A matrix of which most rows have no token is not read while planning."""
    matrix = StoredTensor(tmp_path / "no file", "model.embed_tokens.weight", "BF16", (9000, 1024), 0, 9000 * 2048)

    with pytest.raises(InputError, match="8,900 rows have no token"):
        zero_rows(matrix, 100)
    assert [] == zero_rows(matrix, 9000)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_type_list", [1] * 8),
        ("layernorm_mlp_alpha", 3.0),
        ("layernorm_linear_attention_alpha", 1.0),
        ("layernorm_full_attention_beta", 0.5),
    ],
)
def test_minimax_with_settings_that_no_key_tells_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """One scale for all residual streams, full attention in every eighth block."""
    directory = write_family_checkpoint(tmp_path / "model", "MiniMaxText01ForCausalLM")
    configure(directory, **{key: value})

    with pytest.raises(InputError, match=key):
        convert(directory)


def test_deepseek_ocr_is_told_by_the_outer_class(tmp_path: Path) -> None:
    """Its text part calls itself DeepSeek 2, and has another attention."""
    directory = write_family_checkpoint(tmp_path / "model", "DeepseekOCRForCausalLM")
    configure(directory, language_config={"architectures": ["DeepseekV2ForCausalLM"]})

    keys = keys_of(convert(directory))

    assert "deepseek2-ocr" == keys["general.architecture"]
    assert "{{ message.content }}" in str(keys["tokenizer.chat_template"])


@pytest.mark.parametrize(("hf_class", "wanted"), [("Gemma4UnifiedForConditionalGeneration", [7, 9]), ("", None)])
def test_gemma_with_sound_never_says_some_tokens(tmp_path: Path, hf_class: str, wanted: object) -> None:
    """The settings of its generation list them; other models of the family have no such key."""
    directory = write_family_checkpoint(tmp_path / "model", "Gemma4ForCausalLM")
    configure(directory, architectures=[hf_class or "Gemma4ForCausalLM"])
    (directory / "generation_config.json").write_text(json.dumps({"suppress_tokens": [7, 9]}))

    assert wanted == keys_of(convert(directory)).get("tokenizer.ggml.suppress_tokens")


def test_chameleon_has_one_norm_for_all_heads(tmp_path: Path) -> None:
    """The first head's numbers, in rotary pairs."""
    directory = write_family_checkpoint(tmp_path / "model", "ChameleonForConditionalGeneration")
    stored = load_file(directory / "model.safetensors")["model.layers.0.self_attn.k_norm.weight"]

    found = values_of(convert(directory, float_type="F32"))["blk.0.attn_k_norm.weight"]

    np.testing.assert_array_equal(found, np.stack([stored[0].reshape(2, 8).T.reshape(16)] * 2))


def test_arctic_redefines_pieces(tmp_path: Path) -> None:
    """tokenizer_config.json says which pieces are the first and the last token of a text."""
    directory = write_family_checkpoint(tmp_path / "model", "ArcticForCausalLM")
    entries = {
        "200": {"content": "<|start|>", "special": True},
        "201": {"content": "<unk>2", "special": False},
        "900": {"content": "<|beyond|>", "special": True},
    }
    settings = {"added_tokens_decoder": entries, "unk_token": "<unk>", "bos_token": "<|start|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))

    keys = keys_of(convert(directory))

    tokens, types, scores = (keys[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "scores"))
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert isinstance(scores, list)
    assert ("<|start|>", 3, 0.0) == (tokens[200], types[200], scores[200])
    assert ("<unk>2", 4, -10000.0) == (tokens[201], types[201], scores[201])


def test_ling_3_takes_its_decay_as_it_is(tmp_path: Path) -> None:
    """Other state spaces store a decay whose sign the file has to turn; here the runtime does."""
    directory = write_family_checkpoint(tmp_path / "model", "BailingMoeV3ForCausalLM")
    stored = load_file(directory / "model.safetensors")["model.layers.0.attention.A_log"]

    found = values_of(convert(directory, float_type="F32"))["blk.0.ssm_a"]

    np.testing.assert_allclose(found, np.exp(stored)[:, None], rtol=1e-6)


def test_hrm_text_has_two_stacks(tmp_path: Path) -> None:
    """The low stack comes first in the file, and blocks are counted as often as they run."""
    directory = write_family_checkpoint(tmp_path / "model", "HrmTextForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    plain = values_of(convert(directory, float_type="F32"))
    moved = {}
    for name, values in tensors.items():
        for block, outside in enumerate(
            ("L_module.layers.0", "L_module.layers.1", "H_module.layers.0", "H_module.layers.1")
        ):
            name = name.replace(f"model.layers.{block}.", f"model.{outside}.")
        moved[name] = values
    save_file(moved, directory / "model.safetensors")

    conversion = convert(directory, float_type="F32")

    assert 2 * 2 * 2 == keys_of(conversion)["hrm_text.block_count"]
    found = values_of(conversion)
    assert set(plain) == set(found)
    assert all(np.array_equal(plain[name], found[name]) for name in plain)


def test_dots3_block_for_a_further_token_is_told_by_its_embedding(tmp_path: Path) -> None:
    """The configuration does not mention it; it has a window and no experts."""
    directory = write_family_checkpoint(tmp_path / "model", "Dots3NoteForCausalLM")
    tensors = load_file(directory / "model.safetensors")
    first = {
        name.replace("model.layers.0.", "model.layers.3."): values
        for name, values in tensors.items()
        if name.startswith("model.layers.0.")
    }
    width = np.ones(64, np.float32)
    predicting = {
        "model.mtp.embed_tokens.weight": tensors["model.embed_tokens.weight"],
        "model.layers.3.eh_proj.weight": np.ones((64, 128), np.float32),
        **{f"model.layers.3.{name}.weight": width for name in ("enorm", "hnorm", "shared_head.norm")},
    }
    save_file({**tensors, **first, **predicting}, directory / "model.safetensors")

    conversion = convert(directory)

    keys = keys_of(conversion)
    assert (4, 1) == (keys["dots3note.block_count"], keys["dots3note.nextn_predict_layers"])
    assert [2, 4, 2, 2] == keys["dots3note.attention.head_count"]
    assert "blk.3.nextn.embed_tokens.weight" in {tensor.name for tensor in conversion.tensors}
