"""What the runtime asserts: a file that breaks one of these ends the process that loads it, so it is not written.

Source: src/llama-model.cpp and src/llama-hparams.h of llama.cpp, October 2026.
"""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.model import Model

_BLOCK_LIMIT = 512
_EXPERT_LIMIT = 1024


def check_limits(model: Model) -> None:
    """InputError CONFIG with the key for a model that the runtime cannot hold."""
    config = model.config
    if model.block_count > _BLOCK_LIMIT:
        key = config.find(names.BLOCK_COUNT)[0]
        raise config.error(key, f"{model.block_count} layers, llama.cpp has room for {_BLOCK_LIMIT}")
    if not model.experts:
        return
    if model.experts > _EXPERT_LIMIT:
        key = config.find(names.EXPERT_COUNT)[0]
        raise config.error(key, f"{model.experts} experts, llama.cpp has room for {_EXPERT_LIMIT}")
    used = config.optional_integer(names.EXPERT_USED_COUNT, "expert_count")
    if used is not None and not 0 < used <= model.experts:
        raise config.error(config.find(names.EXPERT_USED_COUNT)[0], f"{used} of {model.experts} experts are used")
    _check_groups(model)


def _check_groups(model: Model) -> None:
    groups = model.config.integer("n_group", default=0)
    used = model.config.integer("topk_group", default=0)
    if groups > 1 and (model.experts % groups or groups >= model.experts):
        raise model.config.error("n_group", f"{model.experts} experts do not fall into {groups} groups")
    if groups > 1 and not 0 < used < groups:
        raise model.config.error("topk_group", f"{used} of {groups} groups are used")
