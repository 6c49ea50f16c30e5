"""Converted checkpoints give in real llama.cpp the numbers that the definition of their class gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.checkpoints import convert, keys_of
from tests.llama_runtime import llama
from tests.unit.convert.families import originals
from tests.written import write_conversion

pytestmark = pytest.mark.llamacpp
TOKENS = [3, 17, 4, 9, 21, 30, 4, 4, 12, 25, 8, 19]
VOCABULARY = 32
Shapes = Mapping[str, tuple[int, ...]]


def random_weights(shapes: Shapes) -> dict[str, np.ndarray]:
    """Numbers of the size that trained ones have; norms near one."""
    random = np.random.default_rng(7)
    weights = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape) * (0.2 if len(shape) > 1 else 0.1)
        weights[name] = (values + ("norm" in name.lower() and name.endswith("weight"))).astype(np.float32)
    return weights


def layered(count: int, shapes: Shapes) -> Shapes:
    """The same shapes for each layer; names have {b} for its number."""
    return {name.format(b=number): shape for number in range(count) for name, shape in shapes.items()}


def with_bias(shapes: Shapes) -> Shapes:
    """Each matrix and norm with its bias."""
    biases = {f"{name.removesuffix('.weight')}.bias": shape[:1] for name, shape in shapes.items()}
    return {**shapes, **biases}


def byte_level() -> Mapping[str, object]:
    texts = [chr(ord("a") + number) for number in range(VOCABULARY - 6)] + ["<s>", "</s>", "<pad>", "<mask>", "Ġ", "ab"]
    return {
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": {text: number for number, text in enumerate(texts)}, "merges": ["a b"]},
    }


def word_pieces() -> Mapping[str, object]:
    texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts += [chr(ord("a") + number) for number in range(VOCABULARY - len(texts))]
    return {"added_tokens": [], "model": {"type": "WordPiece", "vocab": {text: n for n, text in enumerate(texts)}}}


def unigram() -> Mapping[str, object]:
    texts = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{chr(97 + number)}" for number in range(VOCABULARY - 5)), "<mask>"]
    steps = [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]
    return {
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[text, -float(number)] for number, text in enumerate(texts)],
        },
    }


def write(
    directory: Path, config: Mapping[str, object], weights: Mapping[str, np.ndarray], tokenizer: Mapping[str, object]
) -> Path:
    """The checkpoint as a GGUF."""
    (directory / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY, **config}))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    save_file(dict(weights), directory / "model.safetensors")
    return write_conversion(convert(directory, float_type="F32"), directory / "model.gguf")


def compare(
    weights: Mapping[str, np.ndarray], run: Callable[[originals.Weights], np.ndarray], found: np.ndarray
) -> None:
    wanted = run({name: values.astype(np.float64) for name, values in weights.items()})
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found / scale, wanted / scale, atol=3e-3, rtol=0)


def test_gpt_neox_ungroups_queries_keys_and_values(tmp_path: Path) -> None:
    """Fused heads, a quarter of each rotated, attention beside feed-forward."""
    layers = with_bias({
        "gpt_neox.layers.{b}.input_layernorm.weight": (32,),
        "gpt_neox.layers.{b}.post_attention_layernorm.weight": (32,),
        "gpt_neox.layers.{b}.attention.query_key_value.weight": (96, 32),
        "gpt_neox.layers.{b}.attention.dense.weight": (32, 32),
        "gpt_neox.layers.{b}.mlp.dense_h_to_4h.weight": (64, 32),
        "gpt_neox.layers.{b}.mlp.dense_4h_to_h.weight": (32, 64),
    })  # fmt: skip
    outer = {
        "gpt_neox.embed_in.weight": (VOCABULARY, 32),
        "embed_out.weight": (VOCABULARY, 32),
        **with_bias({"gpt_neox.final_layer_norm.weight": (32,)}),
    }
    weights = random_weights({**outer, **layered(2, layers)})
    config = {
        "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "rotary_pct": 0.25, "max_position_embeddings": 64,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.logits(TOKENS)

    compare(weights, lambda w: originals.gpt_neox(w, TOKENS, heads=2, layers=2, share=0.25), found)


def test_mamba2_keeps_its_states(tmp_path: Path) -> None:
    """Two groups of two heads; decay, skip and norm as columns and groups."""
    layers = {
        "backbone.layers.{b}.norm.weight": (32,),
        "backbone.layers.{b}.mixer.in_proj.weight": (64 + 64 + 2 * 2 * 16 + 4, 32),
        "backbone.layers.{b}.mixer.conv1d.weight": (64 + 2 * 2 * 16, 1, 4),
        "backbone.layers.{b}.mixer.conv1d.bias": (64 + 2 * 2 * 16,),
        "backbone.layers.{b}.mixer.dt_bias": (4,),
        "backbone.layers.{b}.mixer.A_log": (4,),
        "backbone.layers.{b}.mixer.D": (4,),
        "backbone.layers.{b}.mixer.norm.weight": (64,),
        "backbone.layers.{b}.mixer.out_proj.weight": (32, 64),
    }
    outer = {"backbone.embeddings.weight": (VOCABULARY, 32), "backbone.norm_f.weight": (32,)}
    weights = random_weights({**outer, **layered(2, layers)})
    config = {
        "architectures": ["Mamba2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "n_groups": 2,
        "state_size": 16, "head_dim": 16, "conv_kernel": 4,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.logits(TOKENS)

    compare(weights, lambda w: originals.mamba2(w, TOKENS, layers=2, heads=4, groups=2, state=16), found)


def bert_shapes(positions: int) -> Shapes:
    layers = with_bias({
        "encoder.layer.{b}.attention.self.query.weight": (32, 32),
        "encoder.layer.{b}.attention.self.key.weight": (32, 32),
        "encoder.layer.{b}.attention.self.value.weight": (32, 32),
        "encoder.layer.{b}.attention.output.dense.weight": (32, 32),
        "encoder.layer.{b}.attention.output.LayerNorm.weight": (32,),
        "encoder.layer.{b}.intermediate.dense.weight": (64, 32),
        "encoder.layer.{b}.output.dense.weight": (32, 64),
        "encoder.layer.{b}.output.LayerNorm.weight": (32,),
    })  # fmt: skip
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, 32),
        "embeddings.position_embeddings.weight": (positions, 32),
        "embeddings.token_type_embeddings.weight": (1, 32),
        **with_bias({"embeddings.LayerNorm.weight": (32,)}),
        **layered(2, layers),
    }


def test_xlm_roberta_counts_positions_after_padding(tmp_path: Path) -> None:
    """The first two rows of the table of positions are cut off."""
    weights = random_weights(bert_shapes(66))
    config = {
        "architectures": ["XLMRobertaModel"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 66, "layer_norm_eps": 1e-5, "pad_token_id": 1,
        "type_vocab_size": 1,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, unigram())) as model:
        found = model.embedding(TOKENS)

    compare(weights, lambda w: originals.bert(w, TOKENS, heads=2, layers=2, offset=2)[-1], found)


NOMIC = {
    "architectures": ["NomicBertModel"], "n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64,
    "layer_norm_epsilon": 1e-5, "rotary_emb_base": 10000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "prenorm": False, "causal": False, "type_vocab_size": 2,
}  # fmt: skip
NOMIC_OUTER = {
    "embeddings.word_embeddings.weight": (VOCABULARY, 32),
    "embeddings.token_type_embeddings.weight": (2, 32),
    **with_bias({"emb_ln.weight": (32,)}),
}


def test_nomic_bert_gates_the_right_half(tmp_path: Path) -> None:
    """Rotated heads, a fused projection, and which of two matrices is the gate."""
    layers = {
        "encoder.layers.{b}.attn.Wqkv.weight": (96, 32),
        "encoder.layers.{b}.attn.out_proj.weight": (32, 32),
        "encoder.layers.{b}.mlp.fc11.weight": (64, 32),
        "encoder.layers.{b}.mlp.fc12.weight": (64, 32),
        "encoder.layers.{b}.mlp.fc2.weight": (32, 64),
        **with_bias({"encoder.layers.{b}.norm1.weight": (32,), "encoder.layers.{b}.norm2.weight": (32,)}),
    }
    weights = random_weights({**NOMIC_OUTER, **layered(2, layers)})
    config = {
        **NOMIC, "activation_function": "swiglu", "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
        "n_positions": 8192, "max_trained_positions": 2048,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, word_pieces())) as model:
        found = model.embedding(TOKENS)

    compare(weights, lambda w: originals.nomic_bert(w, TOKENS, heads=2, layers=2)[-1], found)


def test_nomic_bert_2_keeps_experts_apart(tmp_path: Path) -> None:
    """Experts that stand one below the other, in every other block; the other has one feed-forward part."""
    common = with_bias({
        "encoder.layers.{b}.attn.Wqkv.weight": (96, 32),
        "encoder.layers.{b}.attn.out_proj.weight": (32, 32),
        "encoder.layers.{b}.norm1.weight": (32,),
        "encoder.layers.{b}.norm2.weight": (32,),
    })  # fmt: skip
    plain = with_bias({"encoder.layers.0.mlp.fc1.weight": (64, 32), "encoder.layers.0.mlp.fc2.weight": (32, 64)})
    sparse = {
        "encoder.layers.1.mlp.router.layer.weight": (4, 32),
        "encoder.layers.1.mlp.experts.mlp.w1": (4 * 64, 32),
        "encoder.layers.1.mlp.experts.mlp.w2": (4 * 64, 32),
        "encoder.layers.1.mlp.experts.bias": (32,),
    }
    weights = random_weights({**NOMIC_OUTER, **layered(2, common), **plain, **sparse})
    config = {
        **NOMIC, "activation_function": "gelu", "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True,
        "n_positions": 2048, "max_trained_positions": 2048, "moe_every_n_layers": 2, "moe_top_k": 2, "num_experts": 4,
        "pad_token_id": 1,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, unigram())) as model:
        found = model.embedding(TOKENS)

    compare(weights, lambda w: originals.nomic_bert(w, TOKENS, heads=2, layers=2, chosen=2)[-1], found)


def test_modern_bert_looks_through_its_windows(tmp_path: Path) -> None:
    """The first block has no norm of its own and sees all, the next ones a window with another base of rotation."""
    layers = {
        "model.layers.{b}.attn_norm.weight": (32,),
        "model.layers.{b}.attn.Wqkv.weight": (96, 32),
        "model.layers.{b}.attn.Wo.weight": (32, 32),
        "model.layers.{b}.mlp_norm.weight": (32,),
        "model.layers.{b}.mlp.Wi.weight": (128, 32),
        "model.layers.{b}.mlp.Wo.weight": (32, 64),
    }
    shapes = {
        "model.embeddings.tok_embeddings.weight": (VOCABULARY, 32),
        "model.embeddings.norm.weight": (32,),
        "model.final_norm.weight": (32,),
        **layered(4, layers),
    }
    weights = random_weights(
        {name: shape for name, shape in shapes.items() if name != "model.layers.0.attn_norm.weight"}
    )
    config = {
        "architectures": ["ModernBertModel"], "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 64, "local_attention": 6, "global_attn_every_n_layers": 3, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 64, "bos_token_id": 26, "eos_token_id": 27,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.embedding(TOKENS)

    compare(weights, lambda w: originals.modern_bert(w, TOKENS, heads=2, layers=4, window=6)[-1], found)


def test_gpt2_turns_its_weights(tmp_path: Path) -> None:
    """Weights with inputs as rows, biases as they are."""
    layers = {
        "h.{b}.attn.c_attn.weight": (32, 96),
        "h.{b}.attn.c_attn.bias": (96,),
        "h.{b}.attn.c_proj.weight": (32, 32),
        "h.{b}.attn.c_proj.bias": (32,),
        "h.{b}.mlp.c_fc.weight": (32, 128),
        "h.{b}.mlp.c_fc.bias": (128,),
        "h.{b}.mlp.c_proj.weight": (128, 32),
        "h.{b}.mlp.c_proj.bias": (32,),
        **with_bias({"h.{b}.ln_1.weight": (32,), "h.{b}.ln_2.weight": (32,)}),
        "h.{b}.attn.bias": (1, 1, 64, 64),
    }
    outer = {"wte.weight": (VOCABULARY, 32), "wpe.weight": (64, 32), **with_bias({"ln_f.weight": (32,)})}
    weights = random_weights({**outer, **layered(2, layers)})
    config = {"architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.logits(TOKENS)

    compare(weights, lambda w: originals.gpt2(w, TOKENS, heads=2, layers=2), found)


def test_falcon_ungroups_queries_keys_and_values(tmp_path: Path) -> None:
    """Two groups of two queries that share a key and a value; two norms side by side."""
    layers = {
        **with_bias({"transformer.h.{b}.ln_attn.weight": (64,), "transformer.h.{b}.ln_mlp.weight": (64,)}),
        "transformer.h.{b}.self_attention.query_key_value.weight": (8 * 16, 64),
        "transformer.h.{b}.self_attention.dense.weight": (64, 64),
        "transformer.h.{b}.mlp.dense_h_to_4h.weight": (256, 64),
        "transformer.h.{b}.mlp.dense_4h_to_h.weight": (64, 256),
    }
    outer = {
        "transformer.word_embeddings.weight": (VOCABULARY, 64),
        "lm_head.weight": (VOCABULARY, 64),
        **with_bias({"transformer.ln_f.weight": (64,)}),
    }
    weights = random_weights({**outer, **layered(2, layers)})
    config = {
        "architectures": ["FalconForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.logits(TOKENS)

    compare(weights, lambda w: originals.falcon(w, TOKENS, heads=4, groups=2, layers=2), found)


def test_stablelm_stacks_the_norms_of_its_heads(tmp_path: Path) -> None:
    """One norm for attention and feed-forward, one for each head of queries and keys."""
    layers = {
        **with_bias({"model.layers.{b}.input_layernorm.weight": (32,)}),
        "model.layers.{b}.self_attn.q_proj.weight": (32, 32),
        "model.layers.{b}.self_attn.k_proj.weight": (16, 32),
        "model.layers.{b}.self_attn.v_proj.weight": (16, 32),
        "model.layers.{b}.self_attn.o_proj.weight": (32, 32),
        "model.layers.{b}.mlp.gate_proj.weight": (64, 32),
        "model.layers.{b}.mlp.up_proj.weight": (64, 32),
        "model.layers.{b}.mlp.down_proj.weight": (32, 64),
        "model.layers.{b}.self_attn.q_layernorm.norms.0.weight": (16,),
        "model.layers.{b}.self_attn.q_layernorm.norms.1.weight": (16,),
        "model.layers.{b}.self_attn.k_layernorm.norms.0.weight": (16,),
    }
    outer = {
        "model.embed_tokens.weight": (VOCABULARY, 32),
        "lm_head.weight": (VOCABULARY, 32),
        **with_bias({"model.norm.weight": (32,)}),
    }
    weights = random_weights({**outer, **layered(2, layers)})
    config = {
        "architectures": ["StableLmForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 64, "partial_rotary_factor": 0.25, "use_parallel_residual": True,
        "qk_layernorm": True, "layer_norm_eps": 1e-5,
    }  # fmt: skip
    with llama(write(tmp_path, config, weights, byte_level())) as model:
        found = model.logits(TOKENS)

    compare(weights, lambda w: originals.stablelm(w, TOKENS, heads=2, kv_heads=1, layers=2), found)


def test_t5_encodes_and_answers(tmp_path: Path) -> None:
    """An encoder of two blocks and a decoder of one; the embedding is stored three times."""

    def attention(name: str) -> Shapes:
        return {f"{name}.{part}.weight": (32, 32) for part in "qkvo"}

    def forward(name: str) -> Shapes:
        return {f"{name}.wi_0.weight": (64, 32), f"{name}.wi_1.weight": (64, 32), f"{name}.wo.weight": (32, 64)}

    encoder = {
        **attention("encoder.block.{b}.layer.0.SelfAttention"),
        "encoder.block.{b}.layer.0.layer_norm.weight": (32,),
        **forward("encoder.block.{b}.layer.1.DenseReluDense"),
        "encoder.block.{b}.layer.1.layer_norm.weight": (32,),
    }
    decoder = {
        **attention("decoder.block.{b}.layer.0.SelfAttention"),
        **attention("decoder.block.{b}.layer.1.EncDecAttention"),
        **forward("decoder.block.{b}.layer.2.DenseReluDense"),
        **{f"decoder.block.{{b}}.layer.{part}.layer_norm.weight": (32,) for part in range(3)},
    }
    table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    outer = {
        "shared.weight": (VOCABULARY, 32),
        "lm_head.weight": (VOCABULARY, 32),
        "encoder.final_layer_norm.weight": (32,),
        "decoder.final_layer_norm.weight": (32,),
        f"encoder.{table}": (32, 2),
        f"decoder.{table}": (32, 2),
    }
    weights = random_weights({**outer, **layered(2, encoder), **layered(1, decoder)})
    stored = {
        **weights,
        **{f"{stack}.embed_tokens.weight": weights["shared.weight"] for stack in ("encoder", "decoder")},
    }
    config = {
        "architectures": ["T5ForConditionalGeneration"], "d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2,
        "num_layers": 2, "num_decoder_layers": 1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }  # fmt: skip
    with llama(write(tmp_path, config, stored, unigram())) as model:
        found = model.translation_logits(TOKENS[:8])

    compare(weights, lambda w: originals.t5(w, TOKENS[:8], heads=2, layers=2, decoder_layers=1), found)


def test_distilbert_is_bert_under_other_names(tmp_path: Path) -> None:
    """Its names and keys lead to the same model; kinds of texts are not told apart."""
    shapes = {name: shape for name, shape in bert_shapes(64).items() if "token_type" not in name}
    weights = random_weights(shapes)
    names = {
        "encoder.layer.": "distilbert.transformer.layer.", "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin", "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin", "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1", ".output.dense": ".ffn.lin2", ".output.LayerNorm": ".output_layer_norm",
        "embeddings.": "distilbert.embeddings.",
    }  # fmt: skip
    stored = {}
    for name, values in weights.items():
        for old, new in names.items():
            name = name.replace(old, new, 1)
        stored[name.replace("distilbert.distilbert.", "distilbert.").replace("word_distilbert.", "word_")] = values
    config = {
        "architectures": ["DistilBertForMaskedLM"], "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2,
        "max_position_embeddings": 64,
    }  # fmt: skip
    with llama(write(tmp_path, config, stored, word_pieces())) as model:
        found = model.embedding(TOKENS)

    still = {**weights, "embeddings.token_type_embeddings.weight": np.zeros((1, 32), np.float32)}
    compare(still, lambda w: originals.bert(w, TOKENS, heads=2, layers=2)[-1], found)


def test_roberta_ranks(tmp_path: Path) -> None:
    """A head of two layers with one answer becomes the runtime's classifier."""
    head = {"classifier.dense.weight": (32, 32), "classifier.out_proj.weight": (1, 32)}
    shapes = {**{f"roberta.{name}": shape for name, shape in bert_shapes(66).items()}, **with_bias(head)}
    config = {
        "architectures": ["RobertaForSequenceClassification"], "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 66, "layer_norm_eps": 1e-5,
        "pad_token_id": 1, "type_vocab_size": 1, "id2label": {"0": "LABEL_0"},
    }  # fmt: skip
    file = write(tmp_path, config, random_weights(shapes), byte_level())
    conversion = convert(tmp_path, float_type="F32")

    assert ["LABEL_0"] == keys_of(conversion)["bert.classifier.output_labels"]
    assert 64 == keys_of(conversion)["bert.context_length"]
    assert {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"} <= {t.name for t in conversion.tensors}
    with llama(file) as model:
        assert np.isfinite(model.embedding(TOKENS)).all()
