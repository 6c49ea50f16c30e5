"""Vision parts of model classes in plain numpy, with the tensors of a checkpoint by their stored names.

They follow the published definitions of the classes and know nothing of GGUF. Pictures are (rows, columns, 3), scaled.
"""

from __future__ import annotations

import numpy as np

from tests.unit.convert.families.originals import (
    Array,
    Weights,
    attend,
    by_head,
    gelu,
    gelu_tanh,
    layer_norm,
    project,
    rms_norm,
    silu,
)


def quick_gelu(values: Array) -> Array:
    return values / (1 + np.exp(-1.702 * values))


def patches_of(picture: Array, size: int) -> Array:
    """Squares of a picture, row by row: (rows, columns, 3, size, size)."""
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    return picture.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3)


def convolve(picture: Array, kernel: Array) -> Array:
    """One vector for each patch: (rows, columns, width)."""
    return np.einsum("rcxyz,wxyz->rcw", patches_of(picture, kernel.shape[-1]), kernel)


def _siglip_blocks(values: Array, weights: Weights, heads: int, layers: int, epsilon: float, act: object) -> Array:
    assert callable(act)
    for number in range(layers):
        layer = f"vision_tower.vision_model.encoder.layers.{number}."
        inner = layer_norm(values, weights, f"{layer}layer_norm1", epsilon)
        parts = (by_head(project(inner, weights, f"{layer}self_attn.{name}_proj"), heads) for name in "qkv")
        values = values + project(attend(*parts), weights, f"{layer}self_attn.out_proj")
        inner = project(layer_norm(values, weights, f"{layer}layer_norm2", epsilon), weights, f"{layer}mlp.fc1")
        values = values + project(act(inner), weights, f"{layer}mlp.fc2")
    return values


def llava(weights: Weights, picture: Array, *, heads: int, layers: int, class_last: bool = False) -> Array:
    """CLIP without its last block and its first position, then two layers.

    class_last: as some releases of llama.cpp have it, which put the class behind the patches but count it as the first.
    """
    tower = "vision_tower.vision_model."
    seen = convolve(picture, weights[f"{tower}embeddings.patch_embedding.weight"])
    parts = [weights[f"{tower}embeddings.class_embedding"][None], seen.reshape(-1, seen.shape[-1])]
    values = np.concatenate(parts[::-1] if class_last else parts)
    values = layer_norm(
        values + weights[f"{tower}embeddings.position_embedding.weight"], weights, f"{tower}pre_layrnorm", 1e-5
    )
    values = _siglip_blocks(values, weights, heads, layers - 1, 1e-5, quick_gelu)[1:]
    return project(
        gelu(project(values, weights, "multi_modal_projector.linear_1")), weights, "multi_modal_projector.linear_2"
    )


def gemma3(weights: Weights, picture: Array, *, heads: int, layers: int, tokens: int) -> Array:
    """SigLIP, means of squares of patches, a norm, a projection."""
    tower = "vision_tower.vision_model."
    seen = convolve(picture, weights[f"{tower}embeddings.patch_embedding.weight"])
    seen = seen + weights[f"{tower}embeddings.patch_embedding.bias"]
    side = seen.shape[0]
    values = seen.reshape(side * side, -1) + weights[f"{tower}embeddings.position_embedding.weight"]
    values = _siglip_blocks(values, weights, heads, layers, 1e-6, gelu_tanh)
    values = layer_norm(values, weights, f"{tower}post_layernorm", 1e-6)
    few = round(tokens**0.5)
    values = values.reshape(few, side // few, few, side // few, -1).mean((1, 3)).reshape(tokens, -1)
    norm = 1 + weights["multi_modal_projector.mm_soft_emb_norm.weight"]
    return rms_norm(values, norm, 1e-6) @ weights["multi_modal_projector.mm_input_projection_weight"]


def _turn(heads: Array, angles: Array) -> Array:
    """Rotation of halves by given angles: (positions, half the width)."""
    first, second = np.split(heads, 2, -1)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def mistral3(weights: Weights, picture: Array, *, heads: int, layers: int, row_end: int) -> Array:
    """Pixtral: even frequencies turn by the row, odd ones by the column; four patches become one; rows have an end."""
    tower = "vision_tower."
    seen = convolve(picture, weights[f"{tower}patch_conv.weight"])
    rows, columns, width = seen.shape
    values = rms_norm(seen.reshape(-1, width), weights[f"{tower}ln_pre.weight"], 1e-5)
    dimensions = weights[f"{tower}transformer.layers.0.attention.q_proj.weight"].shape[0] // heads
    frequencies = 10000.0 ** (-np.arange(0, dimensions, 2) / dimensions)
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = np.concatenate([np.outer(row, frequencies[::2]), np.outer(column, frequencies[1::2])], -1)
    for number in range(layers):
        layer = f"{tower}transformer.layers.{number}."
        inner = rms_norm(values, weights[f"{layer}attention_norm.weight"], 1e-5)
        queries, keys, found = (
            by_head(project(inner, weights, f"{layer}attention.{name}_proj"), heads) for name in "qkv"
        )
        mixed = attend(_turn(queries, angles), _turn(keys, angles), found)
        values = values + project(mixed, weights, f"{layer}attention.o_proj")
        inner = rms_norm(values, weights[f"{layer}ffn_norm.weight"], 1e-5)
        gate = silu(project(inner, weights, f"{layer}feed_forward.gate_proj"))
        up = project(inner, weights, f"{layer}feed_forward.up_proj")
        values = values + project(gate * up, weights, f"{layer}feed_forward.down_proj")
    values = rms_norm(values, weights["multi_modal_projector.norm.weight"], 1e-5)
    squares = (
        values.reshape(rows // 2, 2, columns // 2, 2, width).transpose(0, 2, 4, 1, 3).reshape(rows * columns // 4, -1)
    )
    merged = project(squares, weights, "multi_modal_projector.patch_merger.merging_layer")
    tokens = project(
        gelu(project(merged, weights, "multi_modal_projector.linear_1")), weights, "multi_modal_projector.linear_2"
    )
    end = weights["language_model.model.embed_tokens.weight"][row_end]
    lines = tokens.reshape(rows // 2, columns // 2, -1)
    ended = np.concatenate([lines, np.broadcast_to(end, (rows // 2, 1, len(end)))], 1)
    return ended.reshape(-1, ended.shape[-1])[:-1]


def qwen_vl(weights: Weights, picture: Array, *, heads: int, layers: int, version: int) -> Array:
    """Qwen2-VL (version 2) and Qwen2.5-VL (version 25): four neighbours stand together and become one token."""
    kernel = weights["visual.patch_embed.proj.weight"].sum(2)  # a picture stands for two moments
    seen = convolve(picture, kernel)
    rows, columns, width = seen.shape
    together = seen.reshape(rows // 2, 2, columns // 2, 2, width).transpose(0, 2, 1, 3, 4).reshape(-1, width)
    places = np.arange(rows * columns).reshape(rows // 2, 2, columns // 2, 2).transpose(0, 2, 1, 3).reshape(-1)
    row, column = np.divmod(places, columns)
    quarter = width // heads // 2
    frequencies = 10000.0 ** (-np.arange(0, quarter, 2) / quarter)
    angles = np.concatenate([np.outer(row, frequencies), np.outer(column, frequencies)], -1)

    def norm(values: Array, name: str) -> Array:
        if version == 2:
            return layer_norm(values, weights, name, 1e-6)
        return rms_norm(values, weights[f"{name}.weight"], 1e-6)

    values = together
    for number in range(layers):
        layer = f"visual.blocks.{number}."
        fused = project(norm(values, f"{layer}norm1"), weights, f"{layer}attn.qkv")
        queries, keys, found = (by_head(part, heads) for part in np.split(fused, 3, -1))
        mixed = attend(_turn(queries, angles), _turn(keys, angles), found)
        values = values + project(mixed, weights, f"{layer}attn.proj")
        inner = norm(values, f"{layer}norm2")
        if version == 2:
            forward = project(quick_gelu(project(inner, weights, f"{layer}mlp.fc1")), weights, f"{layer}mlp.fc2")
        else:
            gate = silu(project(inner, weights, f"{layer}mlp.gate_proj"))
            forward = project(gate * project(inner, weights, f"{layer}mlp.up_proj"), weights, f"{layer}mlp.down_proj")
        values = values + forward
    merged = norm(values, "visual.merger.ln_q").reshape(rows * columns // 4, -1)
    return project(gelu(project(merged, weights, "visual.merger.mlp.0")), weights, "visual.merger.mlp.2")


def qwen3_vl(weights: Weights, picture: Array, *, heads: int, layers: int, deep: tuple[int, ...]) -> Array:
    """Qwen3-VL: as Qwen2-VL with learnt positions; inner features are merged, too, and stand beside the last ones."""
    prefix = "model.visual."
    seen = convolve(picture, weights[f"{prefix}patch_embed.proj.weight"].sum(2))
    rows, columns, width = seen.shape
    values = seen + weights[f"{prefix}patch_embed.proj.bias"]
    values = values + weights[f"{prefix}pos_embed.weight"].reshape(rows, columns, width)
    values = values.reshape(rows // 2, 2, columns // 2, 2, width).transpose(0, 2, 1, 3, 4).reshape(-1, width)
    places = np.arange(rows * columns).reshape(rows // 2, 2, columns // 2, 2).transpose(0, 2, 1, 3).reshape(-1)
    row, column = np.divmod(places, columns)
    quarter = width // heads // 2
    frequencies = 10000.0 ** (-np.arange(0, quarter, 2) / quarter)
    angles = np.concatenate([np.outer(row, frequencies), np.outer(column, frequencies)], -1)

    def merge(values: Array, place: str) -> Array:
        return project(gelu(project(values, weights, f"{place}linear_fc1")), weights, f"{place}linear_fc2")

    found = []
    for number in range(layers):
        layer = f"{prefix}blocks.{number}."
        fused = project(layer_norm(values, weights, f"{layer}norm1", 1e-6), weights, f"{layer}attn.qkv")
        queries, keys, mixed = (by_head(part, heads) for part in np.split(fused, 3, -1))
        mixed = attend(_turn(queries, angles), _turn(keys, angles), mixed)
        values = values + project(mixed, weights, f"{layer}attn.proj")
        inner = project(layer_norm(values, weights, f"{layer}norm2", 1e-6), weights, f"{layer}mlp.linear_fc1")
        values = values + project(gelu_tanh(inner), weights, f"{layer}mlp.linear_fc2")
        if number in deep:
            place = f"{prefix}deepstack_merger_list.{deep.index(number)}."
            together = values.reshape(rows * columns // 4, -1)
            found.append(merge(layer_norm(together, weights, f"{place}norm", 1e-6), place))
    last = layer_norm(values, weights, f"{prefix}merger.norm", 1e-6).reshape(rows * columns // 4, -1)
    return np.concatenate([merge(last, f"{prefix}merger."), *found], -1)
