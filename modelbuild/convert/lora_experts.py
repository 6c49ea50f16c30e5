"""Changes of fused experts, as PEFT saves them, taken apart into the pairs of single experts.

The library of models keeps the experts of a block in two parameters, whatever their checkpoint stores, and PEFT makes
one pair for each: A has the rows of one expert below those of another, B the columns of all side by side, the expert
counting fastest. Which parameter a pair belongs to is told by the configuration, and by how deep it is wrapped.
mlx-lm stacks the matrices of all experts, module by module.
Source: PEFT (ParamWrapper, build_peft_weight_mapping) and mlx-lm (LoRASwitchLinear), November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from modelbuild.convert.lora_config import AdapterConfig
from modelbuild.convert.lora_pairs import LowRank, Member
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import Reshaped, Transposed, take_rows
from modelbuild.errors import InputError, UnsupportedError, printable

#: In the order of wrapping, the innermost first: the modules of one expert that it holds, as checkpoints call them.
_PARAMETERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_WRAPPED, _EXPERTS = ".base_layer", ".experts"
#: What mlx-lm calls the experts of a block, and its names of their modules in those of Mixtral.
_SWITCH = ".switch_mlp."
_SHORT = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def split_experts(
    pairs: Mapping[str, LowRank], config: AdapterConfig, experts: int, is_known: Callable[[str], bool]
) -> dict[str, LowRank]:
    """The pairs with those of fused experts replaced by one for each expert and module.

    experts: of each block of the base. is_known: whether the base has a tensor of this name.
    Raises UnsupportedError ADAPTER when the base keeps its experts in another way, InputError ADAPTER for ranks that
    are not those of the configuration.
    """
    nested: dict[str, int] = {}
    for pair in pairs.values():
        module = _unwrapped(pair.module)
        nested[module] = nested.get(module, 0) + 1
    result: dict[str, LowRank] = {}
    for name, pair in pairs.items():
        module = _unwrapped(pair.module)
        if len(pair.shape) == 3:
            result.update(_split_stack(pair, experts, is_known))
            continue
        parameters = _changed_parameters(module, config)
        if not parameters:
            result[name] = pair
            continue
        depth = pair.module.count(_WRAPPED)
        if nested[module] != len(parameters) or depth >= len(parameters):
            raise _impossible(module, f"{nested[module]} pairs for {len(parameters)} parameters")
        result.update(_split(pair, module, parameters[-1 - depth], config, experts, is_known))
    return result


def possible_names(pairs: Mapping[str, LowRank], config: AdapterConfig) -> Iterator[str]:
    """Names of which a base that keeps experts one by one has some: they tell of which of several families it is."""
    for pair in pairs.values():
        module = _unwrapped(pair.module)
        if len(pair.shape) == 3:
            start, _, name = module.rpartition(_SWITCH)
            yield from (f"{start}.experts.0.{spelling}.weight" for spelling in (name, _SHORT.get(name, name)))
        for parameter in _changed_parameters(module, config):
            yield from (f"{module}.0.{name}.weight" for names in _PARAMETERS[parameter] for name in names)


def _changed_parameters(module: str, config: AdapterConfig) -> list[str]:
    if not module.endswith(_EXPERTS):
        return []
    return [parameter for parameter in _PARAMETERS if config.does_target(f"{module}.{parameter}")]


def _unwrapped(module: str) -> str:
    while module.endswith(_WRAPPED):
        module = module.removesuffix(_WRAPPED)
    return module


def _split(
    pair: LowRank,
    module: str,
    parameter: str,
    config: AdapterConfig,
    experts: int,
    is_known: Callable[[str], bool],
) -> Iterator[tuple[str, LowRank]]:
    rank = config.rank_of(f"{module}.{parameter}")
    if pair.rank != rank * experts:
        message = f"{printable(module)} has the rank {pair.rank}, the configuration says {rank} for each expert"
        raise InputError("ADAPTER", message, path=config.path, key="r")
    for names in _PARAMETERS[parameter]:
        if all(is_known(f"{module}.0.{name}.weight") for name in names):
            break
    else:
        raise _impossible(module, "its base keeps experts in another form")
    a = Reshaped(pair.a, (experts, rank, pair.a.shape[1]))
    rows, rest = divmod(pair.b.shape[0], len(names))
    if rest:
        raise _impossible(module, f"{pair.b.shape[0]} rows for {len(names)} matrices of one height")
    for number, name in enumerate(names):
        b = _by_expert(take_rows(pair.b, number * rows, (number + 1) * rows), experts, rank)
        for expert in range(experts):
            change = LowRank(Member(a, expert), Member(b, expert), f"{module}.{parameter}")
            yield f"{module}.{expert}.{name}.weight", change


def _split_stack(pair: LowRank, experts: int, is_known: Callable[[str], bool]) -> Iterator[tuple[str, LowRank]]:
    """A pair of stacks, the form of mlx-lm."""
    if pair.shape[0] != experts:
        raise _impossible(pair.module, f"{pair.shape[0]} experts, {experts} in the base model")
    start, _, name = pair.module.rpartition(_SWITCH)
    spellings = (f"{start}.experts.{{}}.{spelling}.weight" for spelling in (name, _SHORT.get(name, name)))
    known = next((spelling for spelling in spellings if is_known(spelling.format(0))), None)
    if known is None:
        raise _impossible(pair.module, "its base keeps experts in another form")
    for expert in range(experts):
        yield known.format(expert), LowRank(Member(pair.a, expert), Member(pair.b, expert), pair.module)


def _by_expert(b: Source, experts: int, rank: int) -> Source:
    """From (rows, rank × experts) to (experts, rows, rank)."""
    rows = b.shape[0]
    return Reshaped(Transposed(Reshaped(b, (rows * rank, experts))), (experts, rows, rank))


def _impossible(module: str, why: str) -> UnsupportedError:
    message = f"the change of the experts of {printable(module)} cannot be an adapter of this base: {why}"
    return UnsupportedError("ADAPTER", message, hint="merge the adapter into its base model before converting it")
