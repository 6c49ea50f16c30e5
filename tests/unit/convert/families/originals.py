"""Forward passes of model classes in plain numpy, with the tensors of a checkpoint by their stored names.

They follow the published definitions of the classes and know nothing of GGUF, so that they can judge conversions: a
wrong permutation, order of parts or number of rotated dimensions gives other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]


def softmax(scores: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def silu(values: Array) -> Array:
    return values / (1 + np.exp(-values))


def gelu(values: Array) -> Array:
    """By the error function."""
    from math import erf

    return 0.5 * values * (1 + np.vectorize(erf)(values / np.sqrt(2)))


def layer_norm(values: Array, weights: Weights, name: str, epsilon: float) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)


def rms_norm(values: Array, weight: Array, epsilon: float) -> Array:
    return values / np.sqrt((values**2).mean(-1, keepdims=True) + epsilon) * weight


def project(values: Array, weights: Weights, name: str) -> Array:
    return values @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def rotate(heads: Array, theta: float, dimensions: int | None = None) -> Array:
    """Rotary embedding of halves; heads: (count, positions, width), of which the first dimensions are rotated."""
    width = dimensions or heads.shape[-1]
    turned, rest = heads[..., :width], heads[..., width:]
    angles = np.arange(heads.shape[1])[:, None] * theta ** (-np.arange(0, width, 2) / width)
    cosine, sine = np.cos(np.tile(angles, 2)), np.sin(np.tile(angles, 2))
    first, second = np.split(turned, 2, -1)
    return np.concatenate([turned * cosine + np.concatenate([-second, first], -1) * sine, rest], -1)


def by_head(values: Array, heads: int) -> Array:
    """(positions, width) as (heads, positions, width of a head)."""
    return values.reshape(len(values), heads, -1).transpose(1, 0, 2)


def attend(queries: Array, keys: Array, values: Array, hidden: Array | None = None) -> Array:
    """Heads beside one another; hidden: True where a position must not look."""
    scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
    if hidden is not None:
        scores = np.where(hidden, -np.inf, scores)
    return (softmax(scores) @ values).transpose(1, 0, 2).reshape(queries.shape[1], -1)


def gpt_neox(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int, share: float) -> Array:
    """Logits after the last token; attention and feed-forward side by side."""
    values = weights["gpt_neox.embed_in.weight"][list(tokens)]
    width = values.shape[-1] // heads
    later = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
    for number in range(layers):
        layer = f"gpt_neox.layers.{number}."
        inner = layer_norm(values, weights, f"{layer}input_layernorm", 1e-5)
        fused = project(inner, weights, f"{layer}attention.query_key_value").reshape(len(tokens), heads, 3, width)
        queries, keys, found = (fused[:, :, part].transpose(1, 0, 2) for part in range(3))
        turned = int(width * share)
        mixed = attend(rotate(queries, 10000.0, turned), rotate(keys, 10000.0, turned), found, later)
        forward = layer_norm(values, weights, f"{layer}post_attention_layernorm", 1e-5)
        forward = gelu(project(forward, weights, f"{layer}mlp.dense_h_to_4h"))
        values = values + project(mixed, weights, f"{layer}attention.dense")
        values = values + project(forward, weights, f"{layer}mlp.dense_4h_to_h")
    values = layer_norm(values, weights, "gpt_neox.final_layer_norm", 1e-5)
    return values[-1] @ weights["embed_out.weight"].T


def bert(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int, offset: int = 0) -> Array:
    """Hidden states; offset: of the first position in the table."""
    positions = np.arange(len(tokens)) + offset
    values = weights["embeddings.word_embeddings.weight"][list(tokens)]
    values = values + weights["embeddings.position_embeddings.weight"][positions]
    values = values + weights["embeddings.token_type_embeddings.weight"][0]
    values = layer_norm(values, weights, "embeddings.LayerNorm", 1e-5)
    for number in range(layers):
        layer = f"encoder.layer.{number}."
        parts = (project(values, weights, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        mixed = attend(*(by_head(part, heads) for part in parts))
        values = values + project(mixed, weights, f"{layer}attention.output.dense")
        values = layer_norm(values, weights, f"{layer}attention.output.LayerNorm", 1e-5)
        forward = project(gelu(project(values, weights, f"{layer}intermediate.dense")), weights, f"{layer}output.dense")
        values = layer_norm(values + forward, weights, f"{layer}output.LayerNorm", 1e-5)
    return values


def nomic_bert(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int, chosen: int = 0) -> Array:
    """Hidden states; chosen: experts per token in every other block, 0 for a model without."""
    values = weights["embeddings.word_embeddings.weight"][list(tokens)]
    values = values + weights["embeddings.token_type_embeddings.weight"][0]
    values = layer_norm(values, weights, "emb_ln", 1e-5)
    for number in range(layers):
        layer = f"encoder.layers.{number}."
        fused = project(values, weights, f"{layer}attn.Wqkv")
        queries, keys, found = (by_head(part, heads) for part in np.split(fused, 3, -1))
        mixed = attend(rotate(queries, 10000.0), rotate(keys, 10000.0), found)
        values = layer_norm(values + project(mixed, weights, f"{layer}attn.out_proj"), weights, f"{layer}norm1", 1e-5)
        forward = _nomic_forward(values, weights, f"{layer}mlp.", chosen if number % 2 else -1 if chosen else 0)
        values = layer_norm(values + forward, weights, f"{layer}norm2", 1e-5)
    return values


def _nomic_forward(values: Array, weights: Weights, name: str, chosen: int) -> Array:
    if chosen == 0:
        inner = project(values, weights, f"{name}fc11") * silu(project(values, weights, f"{name}fc12"))
        return project(inner, weights, f"{name}fc2")
    if chosen < 0:
        return project(gelu(project(values, weights, f"{name}fc1")), weights, f"{name}fc2")
    shares = softmax(project(values, weights, f"{name}router.layer"))
    experts = shares.shape[-1]
    up, down = (weights[f"{name}experts.mlp.{part}"].reshape(experts, -1, values.shape[-1]) for part in ("w1", "w2"))
    result = np.zeros_like(values)
    for row, share in enumerate(shares):
        for expert in np.argsort(-share)[:chosen]:
            result[row] += share[expert] * (gelu(values[row] @ up[expert].T) @ down[expert])
    return result


def modern_bert(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int, window: int) -> Array:
    """Hidden states; every third block sees all, the others as many positions as the window holds."""
    values = layer_norm(
        weights["model.embeddings.tok_embeddings.weight"][list(tokens)], weights, "model.embeddings.norm", 1e-5
    )
    distance = np.abs(np.subtract.outer(np.arange(len(tokens)), np.arange(len(tokens))))
    for number in range(layers):
        layer, sees_all = f"model.layers.{number}.", number % 3 == 0
        inner = layer_norm(values, weights, f"{layer}attn_norm", 1e-5) if number else values
        queries, keys, found = (
            by_head(part, heads) for part in np.split(project(inner, weights, f"{layer}attn.Wqkv"), 3, -1)
        )
        theta = 160000.0 if sees_all else 10000.0
        far = None if sees_all else distance > window // 2
        mixed = attend(rotate(queries, theta), rotate(keys, theta), found, far)
        values = values + project(mixed, weights, f"{layer}attn.Wo")
        forward = project(layer_norm(values, weights, f"{layer}mlp_norm", 1e-5), weights, f"{layer}mlp.Wi")
        first, gate = np.split(forward, 2, -1)
        values = values + project(gelu(first) * gate, weights, f"{layer}mlp.Wo")
    return layer_norm(values, weights, "model.final_norm", 1e-5)


def mamba2(weights: Weights, tokens: Sequence[int], *, layers: int, heads: int, groups: int, state: int) -> Array:
    """Logits after the last token, token by token."""
    values = weights["backbone.embeddings.weight"][list(tokens)]
    for number in range(layers):
        layer = f"backbone.layers.{number}."
        inner = rms_norm(values, weights[f"{layer}norm.weight"], 1e-5)
        values = values + _mixer(inner, weights, f"{layer}mixer.", heads, groups, state)
    values = rms_norm(values, weights["backbone.norm_f.weight"], 1e-5)
    return values[-1] @ weights["backbone.embeddings.weight"].T


def _mixer(inner: Array, weights: Weights, name: str, heads: int, groups: int, state: int) -> Array:
    width = 2 * inner.shape[-1]
    gate, mixed, steps = np.split(
        project(inner, weights, f"{name}in_proj"), [width, 2 * width + 2 * groups * state], axis=-1
    )
    kernel = weights[f"{name}conv1d.weight"][:, 0]
    padded = np.concatenate([np.zeros((kernel.shape[1] - 1, mixed.shape[1])), mixed])
    mixed = np.stack([(padded[row : row + kernel.shape[1]] * kernel.T).sum(0) for row in range(len(mixed))])
    mixed = silu(mixed + weights[f"{name}conv1d.bias"])
    inputs, into, out = np.split(mixed, [width, width + groups * state], axis=-1)
    steps = np.log1p(np.exp(steps + weights[f"{name}dt_bias"]))
    decay = -np.exp(weights[f"{name}A_log"])
    memory = np.zeros((heads, width // heads, state))
    result = np.empty_like(inputs)
    for row, step in enumerate(steps):
        vectors = inputs[row].reshape(heads, -1)
        enter, leave = (np.repeat(part[row].reshape(groups, state), heads // groups, 0) for part in (into, out))
        memory = memory * np.exp(step * decay)[:, None, None] + (step[:, None] * vectors)[:, :, None] * enter[:, None]
        result[row] = ((memory * leave[:, None]).sum(-1) + weights[f"{name}D"][:, None] * vectors).reshape(-1)
    gated = (result * silu(gate)).reshape(len(result), groups, -1)
    gated = gated / np.sqrt((gated**2).mean(-1, keepdims=True) + 1e-5)
    return project(gated.reshape(len(result), -1) * weights[f"{name}norm.weight"], weights, f"{name}out_proj")


def gelu_tanh(values: Array) -> Array:
    """The approximation that GPT-2 uses."""
    return 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))


def gpt2(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int) -> Array:
    """Logits after the last token; weights have inputs as rows."""

    def conv1d(values: Array, name: str) -> Array:
        return values @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    values = weights["wte.weight"][list(tokens)] + weights["wpe.weight"][: len(tokens)]
    later = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
    for number in range(layers):
        layer = f"h.{number}."
        fused = conv1d(layer_norm(values, weights, f"{layer}ln_1", 1e-5), f"{layer}attn.c_attn")
        mixed = attend(*(by_head(part, heads) for part in np.split(fused, 3, -1)), later)
        values = values + conv1d(mixed, f"{layer}attn.c_proj")
        inner = gelu_tanh(conv1d(layer_norm(values, weights, f"{layer}ln_2", 1e-5), f"{layer}mlp.c_fc"))
        values = values + conv1d(inner, f"{layer}mlp.c_proj")
    return layer_norm(values, weights, "ln_f", 1e-5)[-1] @ weights["wte.weight"].T


def falcon(weights: Weights, tokens: Sequence[int], *, heads: int, groups: int, layers: int) -> Array:
    """Logits after the last token; two norms side by side, queries in groups that share a key and a value."""
    values = weights["transformer.word_embeddings.weight"][list(tokens)]
    width = values.shape[-1] // heads
    later = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
    for number in range(layers):
        layer = f"transformer.h.{number}."
        inner = layer_norm(values, weights, f"{layer}ln_attn", 1e-5)
        fused = project(inner, weights, f"{layer}self_attention.query_key_value").reshape(
            len(tokens), groups, -1, width
        )
        queries = fused[:, :, :-2].reshape(len(tokens), heads, width).transpose(1, 0, 2)
        keys, found = (np.repeat(fused[:, :, part].transpose(1, 0, 2), heads // groups, 0) for part in (-2, -1))
        mixed = attend(rotate(queries, 10000.0), rotate(keys, 10000.0), found, later)
        forward = project(layer_norm(values, weights, f"{layer}ln_mlp", 1e-5), weights, f"{layer}mlp.dense_h_to_4h")
        values = values + project(mixed, weights, f"{layer}self_attention.dense")
        values = values + project(gelu(forward), weights, f"{layer}mlp.dense_4h_to_h")
    return layer_norm(values, weights, "transformer.ln_f", 1e-5)[-1] @ weights["lm_head.weight"].T


def stablelm(weights: Weights, tokens: Sequence[int], *, heads: int, kv_heads: int, layers: int) -> Array:
    """Logits after the last token; a norm of its own for each head, a quarter of each head rotated."""
    values = weights["model.embed_tokens.weight"][list(tokens)]
    later = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
    for number in range(layers):
        layer = f"model.layers.{number}."
        inner = layer_norm(values, weights, f"{layer}input_layernorm", 1e-5)
        queries, keys, found = (
            by_head(project(inner, weights, f"{layer}self_attn.{name}_proj"), count)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        for name, parts in (("q", queries), ("k", keys)):
            for head, part in enumerate(parts):
                parts[head] = layer_norm(part, weights, f"{layer}self_attn.{name}_layernorm.norms.{head}", 1e-5)
        turned = queries.shape[-1] // 4
        keys, found = (np.repeat(part, heads // kv_heads, 0) for part in (rotate(keys, 10000.0, turned), found))
        mixed = attend(rotate(queries, 10000.0, turned), keys, found, later)
        forward = {name: project(inner, weights, f"{layer}mlp.{name}_proj") for name in ("gate", "up")}
        values = values + project(mixed, weights, f"{layer}self_attn.o_proj")
        values = values + project(silu(forward["gate"]) * forward["up"], weights, f"{layer}mlp.down_proj")
    return layer_norm(values, weights, "model.norm", 1e-5)[-1] @ weights["lm_head.weight"].T


def t5(weights: Weights, tokens: Sequence[int], *, heads: int, layers: int, decoder_layers: int) -> Array:
    """Logits of the first word about an encoded text, after the start token 0."""
    seen = weights["shared.weight"][list(tokens)]
    seen = _t5_stack(weights, seen, None, "encoder", heads, layers)
    spoken = _t5_stack(weights, weights["shared.weight"][[0]], seen, "decoder", heads, decoder_layers)
    return spoken[-1] @ weights["lm_head.weight"].T


def _t5_stack(weights: Weights, values: Array, seen: Array | None, stack: str, heads: int, layers: int) -> Array:
    distances = weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias = distances[_buckets(len(values), both_ways=seen is None)].transpose(2, 0, 1)
    for number in range(layers):
        layer = f"{stack}.block.{number}.layer."
        inner = rms_norm(values, weights[f"{layer}0.layer_norm.weight"], 1e-6)
        values = values + _t5_attention(weights, f"{layer}0.SelfAttention", inner, inner, heads, bias)
        last = 1
        if seen is not None:
            inner = rms_norm(values, weights[f"{layer}1.layer_norm.weight"], 1e-6)
            values = values + _t5_attention(weights, f"{layer}1.EncDecAttention", inner, seen, heads, 0.0)
            last = 2
        inner = rms_norm(values, weights[f"{layer}{last}.layer_norm.weight"], 1e-6)
        name = f"{layer}{last}.DenseReluDense."
        gate = gelu_tanh(project(inner, weights, f"{name}wi_0"))
        values = values + project(gate * project(inner, weights, f"{name}wi_1"), weights, f"{name}wo")
    return rms_norm(values, weights[f"{stack}.final_layer_norm.weight"], 1e-6)


def _t5_attention(weights: Weights, name: str, values: Array, seen: Array, heads: int, bias: Array | float) -> Array:
    """Attention without scaling; `seen` is looked at."""
    queries = by_head(project(values, weights, f"{name}.q"), heads)
    keys, found = (by_head(project(seen, weights, f"{name}.{part}"), heads) for part in ("k", "v"))
    shares = softmax(queries @ keys.transpose(0, 2, 1) + bias)
    return project((shares @ found).transpose(1, 0, 2).reshape(len(values), -1), weights, f"{name}.o")


def _buckets(count: int, *, both_ways: bool) -> npt.NDArray[np.int64]:
    """Buckets of distances below 8, which are one for each distance: 32 of them, half for each direction."""
    distance = np.subtract.outer(np.arange(count), np.arange(count))
    assert both_ways is False or count <= 8, "distances from 8 on share buckets"
    return np.where(distance < 0, 16 - distance, distance) if both_ways else np.maximum(distance, 0)
