"""Changes that llama.cpp loads and does not apply, because it multiplies by these matrices in another way.

Found by comparing its logits with those of merged models, matrix by matrix, in October 2026. They are no errors: the
file is right, the other changes count, and a later release may apply them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_LATENT = ("output", "attn_q", "attn_q_a", "attn_q_b", "attn_kv_a_mqa")
_DELTA = ("attn_k", "attn_v", "ssm_f_a", "ssm_f_b", "ssm_beta", "ssm_g_a", "ssm_g_b")
#: By architecture, the names of tensors without block and suffix.
_NOT_APPLIED: Mapping[str, tuple[str, ...]] = {
    "bailingmoe3": ("output", "attn_q", *_DELTA),
    "deepseek2": _LATENT,
    "deepseek2-ocr": ("output",),
    "deepseek32": _LATENT,
    "dots3note": _LATENT,
    "glm-dsa": _LATENT,
    "glm5-next": ("output", "attn_q", *_DELTA, "hc_attn_fn", "hc_ffn_fn"),
    "hy_v4": (*_LATENT, "attn_gate", "hc_attn_fn", "hc_ffn_fn", "output_hc_fn"),
    "kimi-linear": (*_LATENT, *_DELTA),
    "minicpm3": ("attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b"),
}
_HALF = ".weight.lora_a"


def notes_on(architecture: str, names: Iterable[str]) -> tuple[str, ...]:
    """A remark when some of an adapter's tensors have no effect in llama.cpp."""
    ignored = _NOT_APPLIED.get(architecture, ())
    changed = {name.removesuffix(_HALF).rpartition(".")[2] for name in names if name.endswith(_HALF)}
    found = [name for name in ignored if name in changed]
    if not found:
        return ()
    listed = ", ".join(found)
    hint = "merge the adapter into its base model for its whole effect"
    return (f"llama.cpp (October 2026) does not apply changes of {listed} in {architecture} models; {hint}",)
