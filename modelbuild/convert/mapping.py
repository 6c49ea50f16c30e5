"""From stored names to what a family's rules make of them, with everything that does not fit listed at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import product

from modelbuild.convert.family import Family, Presence, TensorRule
from modelbuild.convert.model import Model
from modelbuild.convert.name_list import list_names
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import stack
from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

_SUFFIXES = (".weight", ".bias")
#: What a number of numbers in a name may stand for.
_READINGS = {0: ((),), 1: (("{b}",), ("{e}",)), 2: (("{b}", "{e}"),)}
_DIGITS = late_pattern(r"[0-9]{1,6}", re.ASCII)


@record
class Match:
    """A stored name under a rule: its suffix (empty for rules without), block and expert (-1 for none)."""

    rule: TensorRule
    suffix: str
    block: int
    expert: int


@record
class Output:
    """A tensor of the result without its type."""

    name: str
    source: Source


class RuleIndex:
    """Finds the rule for a stored name: numbers in the name stand for themselves or for block and expert."""

    def __init__(self, family: Family) -> None:
        self._rules = {rule.source: rule for rule in family.tensors}

    def find(self, name: str) -> Match | None:
        """The match, None when no rule knows the name."""
        for suffix in ("", *_SUFFIXES):
            stem = name.removesuffix(suffix) if suffix and name.endswith(suffix) else name if not suffix else ""
            for template, (block, expert) in _templates(stem):
                rule = self._rules.get(template)
                if rule is not None and rule.suffixed == bool(suffix):
                    return Match(rule, suffix, block, expert)
        return None


def _templates(name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every way to read up to two of a name's numbers as block and expert, the most placeholders first."""
    if not name:
        return
    parts = name.split(".")
    places = [place for place, part in enumerate(parts) if _DIGITS.fullmatch(part)][:4]
    for chosen in sorted(product((True, False), repeat=len(places)), key=lambda flags: -sum(flags)):
        picked = [place for place, use in zip(places, chosen, strict=True) if use]
        for placeholders in _READINGS.get(len(picked), ()):
            filled, numbers = list(parts), {"{b}": -1, "{e}": -1}
            for place, placeholder in zip(picked, placeholders, strict=True):
                filled[place], numbers[placeholder] = placeholder, int(parts[place])
            yield ".".join(filled), (numbers["{b}"], numbers["{e}"])


@record(frozen=False)
class _Trouble:
    """What does not fit, by kind."""

    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)

    def finish(self, model: Model, *, complete: bool) -> None:
        kinds = (
            ("unexpected", self.unexpected),
            ("missing", self.missing),
            ("of a wrong shape", self.shapes),
        )
        lines = [line for kind, names in kinds if names for line in _listed(kind, names)]
        if lines and not complete:
            message = "the adapter does not fit the base model:\n" + "\n".join(lines)
            hint = "was the adapter trained on this model?"
            raise InputError("ADAPTER", message, path=model.checkpoint.origin, hint=hint)
        if lines:
            message = f"the tensors do not fit {model.hf_class}:\n" + "\n".join(lines)
            code = "SHAPE" if self.shapes and not (self.missing or self.unexpected) else "ENTRY"
            raise InputError(code, message, path=model.checkpoint.origin, hint="is the checkpoint complete?")


def _listed(kind: str, names: Sequence[str]) -> Iterator[str]:
    yield f"  {len(names)} {kind}:"
    yield from list_names(names, "    ")


def map_tensors(
    model: Model, sources: Mapping[str, Source], *, complete: bool = True, strict: bool = True
) -> list[Output]:
    """Apply a family's rules to all stored tensors, in order; unless `complete` to those that an adapter changes.

    Without `strict`, blocks and shapes are checked only as far as transforms depend on them.
    Raises one InputError that lists what is unexpected, missing or of a wrong shape: ENTRY, SHAPE when only shapes are
    wrong, ADAPTER for an adapter.
    """
    index = RuleIndex(model.family)
    matches: dict[str, Match] = {}
    trouble = _Trouble()
    for name in sources:
        match = index.find(name)
        if match is None or _is_unwanted(match, model, strict=strict):
            trouble.unexpected.append(printable(name))
            continue
        matches[name] = match
        if strict or match.rule.transform:
            _check_shape(model, name, match, sources[name], trouble)
    _find_missing(model, matches, trouble, complete=complete)
    trouble.finish(model, complete=complete)
    early = {name: match for name, match in matches.items() if match.rule.first}
    late = {name: match for name, match in matches.items() if not match.rule.first}
    return [*_emit(model, sources, early), *_emit(model, sources, late)]


def _is_unwanted(match: Match, model: Model, *, strict: bool) -> bool:
    rule = match.rule
    if match.suffix == ".bias" and rule.bias == "absent":
        return True
    if match.suffix != ".bias" and rule.weight == "absent":
        return True
    if "{b}" in rule.source and not 0 <= match.block < model.block_count:
        return True
    if "{e}" in rule.source and not 0 <= match.expert < _member_count(model, rule):
        return True
    return strict and rule.when is not None and not rule.when(model, match.block)


def _check_shape(model: Model, name: str, match: Match, source: Source, trouble: _Trouble) -> None:
    if not match.rule.shape:
        return
    sizes = expected_sizes(model, match.rule, match.block, match.suffix)
    fits = len(sizes) == len(source.shape) and all(
        size is None or size == found for size, found in zip(sizes, source.shape, strict=True)
    )
    if not fits:
        expected = " × ".join("any" if size is None else str(size) for size in sizes)
        found = " × ".join(map(str, source.shape))
        trouble.shapes.append(f"{printable(name)}: {found}, expected {expected}")


def expected_sizes(model: Model, rule: TensorRule, block: int, suffix: str) -> list[int | None]:
    """The shape that a rule wants for a block; None stands for any size. A bias has one number per row."""
    terms = (rule.shape if isinstance(rule.shape, str) else rule.shape(model, block)).split()
    if suffix == ".bias":
        terms = rule.bias_shape.split() or (terms[-2:-1] if len(terms) > 1 else terms)
    return [_size(model, term) for term in terms]


def _size(model: Model, expression: str) -> int | None:
    """The value of a sum of products of names and numbers; None when a part of it is unknown."""
    total = 0
    for product_ in expression.split("+"):
        value = 1
        for term in product_.split("*"):
            size = None if term == "?" else int(term) if term.isdecimal() else model.size(term)
            if size is None:
                return None
            value *= size
        total += value
    return total


def _find_missing(model: Model, matches: Mapping[str, Match], trouble: _Trouble, *, complete: bool) -> None:
    """What has to be there and is not; lists of experts that have begun must be complete in any case."""
    present = {(match.rule.source, match.suffix, match.block, match.expert) for match in matches.values()}
    begun = {(source, suffix, block) for source, suffix, block, expert in present if expert >= 0}
    for rule in model.family.tensors:
        for suffix, presence in ((".weight", rule.weight), (".bias", rule.bias)):
            if not rule.suffixed:
                suffix = ""
            for block, expert in _places(model, rule):
                needed = (complete and _is_needed(model, rule, presence, block)) or (
                    rule.source,
                    suffix,
                    block,
                ) in begun
                if needed and (rule.source, suffix, block, expert) not in present:
                    trouble.missing.append(rule.source.format(b=block, e=expert) + suffix)
            if not rule.suffixed:
                break


def _member_count(model: Model, rule: TensorRule) -> int:
    return rule.count(model) if rule.count else model.experts


def _is_needed(model: Model, rule: TensorRule, presence: Presence, block: int) -> bool:
    if rule.unless and rule.unless.format(b=block) in model.stored:
        return False
    if presence == "untied":
        headless = model.hf_class.endswith("Model")  # classes of the base model alone store no output
        return model.config.get("tie_word_embeddings") is False and not headless
    return presence == "required"


def _places(model: Model, rule: TensorRule) -> Iterator[tuple[int, int]]:
    blocks = range(model.block_count) if "{b}" in rule.source else (-1,)
    experts = range(_member_count(model, rule)) if "{e}" in rule.source else (-1,)
    for block in blocks:
        if rule.when is None or rule.when(model, block):
            yield from ((block, expert) for expert in experts)


def _emit(model: Model, sources: Mapping[str, Source], matches: Mapping[str, Match]) -> Iterator[Output]:
    gathered: dict[tuple[str, int], dict[tuple[str, str], dict[int, Source]]] = {}
    waiting = _count_experts(matches)
    for name, match in matches.items():
        if "{e}" not in match.rule.source:
            yield from _outputs(model, match.rule, match, sources[name])
            continue
        group = _group(match)
        lists = gathered.setdefault(group, {})
        lists.setdefault((match.rule.source, match.suffix), {})[match.expert] = sources[name]
        waiting[group] -= 1
        if not waiting[group]:
            yield from _stacked(model, lists, match)
            del gathered[group]


def _group(match: Match) -> tuple[str, int]:
    return match.rule.source.split("{e}")[0], match.block


def _count_experts(matches: Mapping[str, Match]) -> dict[tuple[str, int], int]:
    counts: dict[tuple[str, int], int] = {}
    for match in matches.values():
        if "{e}" in match.rule.source:
            group = _group(match)
            counts[group] = counts.get(group, 0) + 1
    return counts


def _stacked(model: Model, lists: Mapping[tuple[str, str], Mapping[int, Source]], last: Match) -> Iterator[Output]:
    """The experts of one layer, list by list in the order of the rules."""
    for rule in model.family.tensors:
        for suffix in ("", *_SUFFIXES):
            members = lists.get((rule.source, suffix))
            if members:
                source = stack(tuple(members[expert] for expert in range(_member_count(model, rule))))
                yield from _outputs(model, rule, Match(rule, suffix, last.block, -1), source)


def _outputs(model: Model, rule: TensorRule, match: Match, source: Source) -> Iterator[Output]:
    made: Source | tuple[Source, ...] = source
    if rule.transform is not None and (rule.transform_bias or match.suffix != ".bias"):
        made = rule.transform(source, model, match.block)
    sources = made if isinstance(made, tuple) else (made,)
    for target, part in zip(rule.targets, sources, strict=True):
        yield Output(target.format(b=match.block) + match.suffix, part)
