"""The model that an adapter belongs to, told from its checkpoint or from the header of its GGUF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.convert.engine import model_of
from modelbuild.convert.families import all_families
from modelbuild.convert.family import Family
from modelbuild.convert.hub_config import HubConfig
from modelbuild.convert.mapping import RuleIndex
from modelbuild.convert.model import KV_HEADS_BY_BLOCK, Model
from modelbuild.errors import InputError, UnsupportedError, printable
from modelbuild.formats.gguf.reader import GgufHeader
from modelbuild.records import record

#: Keys of a GGUF below its architecture, and the names under which configurations keep the same numbers.
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers", "num_layers"),
    "decoder_block_count": ("num_decoder_layers",),
    "embedding_length": ("hidden_size", "d_model", "n_embd"),
    "feed_forward_length": ("intermediate_size", "d_ff", "n_inner"),
    "attention.head_count": ("num_attention_heads", "num_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "context_length": ("max_position_embeddings", "n_positions"),
    "vocab_size": ("vocab_size",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "expert_shared_count": ("n_shared_experts",),
    "leading_dense_block_count": ("first_k_dense_replace", "num_dense_layers"),
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.value_length_mla": ("v_head_dim",),
    "attention.relative_buckets_count": ("relative_attention_num_buckets",),
    "rope.dimension_count": ("attn_rotary_emb",),
    "nextn_predict_layers": ("num_nextn_predict_layers", "mtp_num_hidden_layers"),
    "rescale_every_n_layers": ("rescale_every",),
    "ssm.conv_kernel": ("conv_kernel", "linear_conv_kernel_dim", "mamba_d_conv"),
    "ssm.inner_size": ("mamba_d_ssm",),
    "ssm.state_size": ("state_size", "linear_key_head_dim", "mamba_d_state"),
    "ssm.group_count": ("n_groups", "linear_num_key_heads", "mamba_n_groups"),
    "ssm.time_step_rank": ("time_step_rank", "linear_num_value_heads", "mamba_n_heads", "mamba_dt_rank"),
}


@record
class AdapterBase:
    """models: the families that may have made it, the likeliest first; all of one architecture.

    shapes: of its tensors by GGUF name, row-major; None when a checkpoint tells them by stored names.
    """

    origin: str
    architecture: str
    models: tuple[Model, ...]
    shapes: Mapping[str, tuple[int, ...]] | None

    def model_for(self, names: Iterable[str], rule_name: Callable[[Model, str], str]) -> Model:
        """The model under whose rules most of the names have a meaning."""
        wanted = list(names)

        def unknown(model: Model) -> int:
            index = RuleIndex(model.family)
            return sum(index.find(rule_name(model, name)) is None for name in wanted)

        return min(self.models, key=unknown)


def base_of_checkpoint(checkpoint: Checkpoint) -> AdapterBase:
    """A base that stands beside its adapter as a checkpoint; raises what converting it would raise at first."""
    model = model_of(checkpoint)
    return AdapterBase(checkpoint.origin, model.architecture, (model,), None)


def base_of_header(header: GgufHeader) -> AdapterBase:
    """A base that is a GGUF; UnsupportedError ARCHITECTURE when no family makes its architecture."""
    architecture = header.kv.get_string("general.architecture") or ""
    if not architecture:
        message = "architecture not set for the base model"
        raise InputError("META", message, path=header.path, key="general.architecture")
    values = _config_values(header, architecture)
    models = tuple(
        model for family in all_families() if (model := _model(family, header, architecture, values)) is not None
    )
    if not models:
        message = f"unsupported architecture {printable(architecture)!r}: adapters for it cannot be converted"
        raise UnsupportedError("ARCHITECTURE", message, path=header.path, hint="convert the adapter to GGUF yourself")
    shapes = {tensor.name: tuple(reversed(tensor.shape)) for tensor in header.tensors}
    return AdapterBase(str(header.path), architecture, models, shapes)


def _model(family: Family, header: GgufHeader, architecture: str, values: Mapping[str, object]) -> Model | None:
    """The family's model with the numbers of the header, None when it makes another architecture."""
    hub = HubConfig(family.classes[0], family.classes[0], values, values)
    model = Model.of(family, hub, Checkpoint({CONFIG: header.path}, str(header.path)))
    try:
        return model if model.architecture == architecture else None
    except InputError:
        return None


def _config_values(header: GgufHeader, architecture: str) -> dict[str, object]:
    """The header's numbers under the names of configurations; of those that differ between layers the largest."""

    def number(key: str) -> int | None:
        single = header.kv.get_integer(f"{architecture}.{key}")
        return _largest(header, f"{architecture}.{key}") if single is None else single

    values: dict[str, object] = {"model_type": architecture}
    for key, names in _NUMBERS.items():
        found = number(key)
        if found is not None:
            values.update(dict.fromkeys(names, found))
    if not values.get("intermediate_size"):  # a state space alone is described by its inner width
        values.update({"intermediate_size": values["mamba_d_ssm"]} if "mamba_d_ssm" in values else {})
    blocks, predicting = number("block_count"), number("nextn_predict_layers")
    if blocks is not None and predicting is not None:
        values["num_hidden_layers"] = blocks - predicting
    values.update(_head_sizes(number))
    heads = f"{architecture}.attention.head_count_kv"
    if heads in header.kv and number("attention.head_count_kv") is not None:
        values[KV_HEADS_BY_BLOCK] = header.kv.get_integers(heads)
    sections = f"{architecture}.rope.dimension_sections"
    if sections in header.kv:
        values["rope_parameters"] = {"mrope_section": header.kv.get_integers(sections)}
    values["tie_word_embeddings"] = not any(tensor.name == "output.weight" for tensor in header.tensors)
    return values


def _largest(header: GgufHeader, key: str) -> int | None:
    """Of a key with a number for each layer; None when it is no such key."""
    if key not in header.kv:
        return None
    return max(header.kv.get_integers(key) or [], default=None)


def _head_sizes(number: Callable[[str], int | None]) -> dict[str, object]:
    """Widths of heads; latent attention is described as attention with one head, a linear one by its whole width."""
    values: dict[str, object] = {}
    length, inner, heads = number("attention.key_length"), number("ssm.inner_size"), number("ssm.time_step_rank")
    if length is not None:
        values["head_dim"] = values["d_kv"] = length
        rotated = number("rope.dimension_count")
        if rotated is not None:
            values["partial_rotary_factor"] = rotated / length
    if inner and heads:
        values["linear_value_head_dim"] = inner // heads
    whole, rotated = number("attention.key_length_mla"), number("rope.dimension_count")
    if whole is not None and rotated is not None:
        values |= {"qk_rope_head_dim": rotated, "qk_nope_head_dim": whole - rotated, "head_dim": rotated}
    return values
