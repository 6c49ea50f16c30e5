"""`tokenizer.ggml.pre`: how the runtime splits text before it merges bytes.

A tokenizer's own regular expressions are compared with known ones and never run. What fits is decided in this order:
the user's choice; the check hash of the reference converter (`check_hash`); the digest of the split expressions or the
structure of the pre-tokenizer, where the family's preference and the handling of merges choose among equals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.check_hash import name_by_check_hash
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.convert.tokenizers.table import pre_tokenizer_table
from modelbuild.digest import sha256_hex
from modelbuild.errors import UnsupportedError, UsageError, printable
from modelbuild.records import record
from modelbuild.similar_names import similar_names

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

_DEPTH_LIMIT = 4


def check_pre_tokenizer_name(name: str) -> str:
    """The name itself; UsageError UNKNOWN with near names when the runtime does not know it."""
    known = pre_tokenizer_table().ignores_merges
    if name in known:
        return name
    near = similar_names(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(sorted(known))}"
    raise UsageError("UNKNOWN", f"unknown pre-tokenizer {printable(name)!r}", hint=hint)


@record
class PreTokenizer:
    """The name, and in words how it was found."""

    name: str
    evidence: str


def find_pre_tokenizer(files: TokenizerFiles, model: Model) -> str:
    """The name for a tokenizer; UnsupportedError TOKENIZER when nothing known fits."""
    return choose_pre_tokenizer(files, model).name


def choose_pre_tokenizer(files: TokenizerFiles, model: Model) -> PreTokenizer:
    """The name for a tokenizer with the evidence; UnsupportedError TOKENIZER when nothing known fits."""
    if model.pre_tokenizer is not None:
        return PreTokenizer(check_pre_tokenizer_name(model.pre_tokenizer), "the recipe says so")
    preferred = model.family.pre_tokenizers
    usual = PreTokenizer(preferred[0] if preferred else "default", "what models of this architecture have")
    if files.model_type not in ("BPE", "WordPiece"):
        return usual
    if files.model_type == "WordPiece":  # the runtime looks at the name for BPE alone
        name = name_by_check_hash(files)
        return usual if name is None else PreTokenizer(name, _BY_IDS)
    digest = split_digest(files)
    candidates = _candidates(files, digest)
    how = "its split expressions" if digest else f"its steps, {printable(structure_of(files))},"
    if len(candidates) == 1:  # whatever the ids say, and working them out takes a while
        return PreTokenizer(candidates[0], f"{how} are those of this name alone")
    name = name_by_check_hash(files, candidates)
    if name is not None and (not candidates or name in candidates):
        return PreTokenizer(name, _BY_IDS)
    if not candidates:
        raise _unknown(files, digest, preferred)
    chosen = _choose(candidates, preferred, ignores_merges=files.model.get("ignore_merges") is True)
    others = [name for name in candidates if name != chosen]
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return PreTokenizer(chosen, f"{how} are those of this name, and of {shown}, which split alike")


_BY_IDS = "it gives the reference converter's check text the ids that this name stands for"


def _candidates(files: TokenizerFiles, digest: str) -> Sequence[str]:
    table = pre_tokenizer_table()
    if digest:
        return table.digests.get(digest, ())
    return table.structures.get(structure_of(files), ())


def _choose(candidates: Sequence[str], preferred: Sequence[str], *, ignores_merges: bool) -> str:
    """The family's preference first, then a name under which the runtime treats merges as the tokenizer does."""
    for name in preferred:
        if name in candidates:
            return name
    known = pre_tokenizer_table().ignores_merges
    return next((name for name in candidates if known.get(name) == ignores_merges), candidates[0])


def split_digest(files: TokenizerFiles) -> str:
    """SHA-256 over all split expressions, concatenated; empty when there is none."""
    text = "".join(_expressions(files))
    return sha256_hex(text.encode("utf-8", "surrogatepass")) if text else ""


def near_names(files: TokenizerFiles) -> list[str]:
    """Names under which the runtime splits by expressions like the tokenizer's, the most similar first; at most 3.

    Of names that split alike the first counts; expressions are compared as texts and never run.
    """
    found = _comparable("".join(_expressions(files)))
    ways: dict[str, str] = {}
    for name, expressions in pre_tokenizer_table().expressions.items():
        ways.setdefault(_comparable("".join(expressions)), name)
    return [ways[way] for way in similar_names(found, ways, n=3, cutoff=0.6)] if found else []


def _comparable(expressions: str) -> str:
    """The runtime spells a case-insensitive part out, which says nothing about how alike two are."""
    for spelt, short in _SPELLINGS:
        expressions = expressions.replace(spelt, short)
    return expressions[:_COMPARED_LENGTH]


_SPELLINGS = (
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
    ("[sdmt]|ll|ve|re", "s|t|re|ve|m|ll|d"),
)
#: Comparing takes the product of both lengths.
_COMPARED_LENGTH = 1000


def structure_of(files: TokenizerFiles) -> str:
    """The kinds of steps, such as `Digits,ByteLevel`; steps that change nothing are left out."""
    return ",".join(kind for step in pre_tokenizer_steps(files) if (kind := _kind(step)))


def pre_tokenizer_steps(files: TokenizerFiles) -> list[Mapping[str, object]]:
    """The steps of the pre-tokenizer, sequences flattened."""
    return _flatten(files.document.get("pre_tokenizer"), 0)


def _flatten(step: object, depth: int) -> list[Mapping[str, object]]:
    if not isinstance(step, dict) or depth > _DEPTH_LIMIT:
        return []
    inner = step.get("pretokenizers")
    if step.get("type") != "Sequence" or not isinstance(inner, list):
        return [step]
    return [item for child in inner for item in _flatten(child, depth + 1)]


def _expressions(files: TokenizerFiles) -> list[str]:
    return [text for step in pre_tokenizer_steps(files) if (text := _expression(step))]


def _expression(step: Mapping[str, object]) -> str:
    pattern = step.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, dict) and step.get("type") == "Split" else None
    return expression if isinstance(expression, str) else ""


def _kind(step: Mapping[str, object]) -> str:
    kind = step.get("type")
    if kind == "ByteLevel" and step.get("use_regex") is False:
        return ""
    return kind if isinstance(kind, str) else ""


def _unknown(files: TokenizerFiles, digest: str, preferred: Sequence[str]) -> UnsupportedError:
    found = (
        f"its split expressions have the digest {digest[:16]}…" if digest else f"its steps are {structure_of(files)!r}"
    )
    near = near_names(files)
    shown = ", ".join(near or preferred or ("llama-bpe", "qwen2", "gpt-2", "default"))
    similar = "these split by similar expressions" if near else "for example"
    return UnsupportedError(
        "TOKENIZER",
        f"no known pre-tokenizer fits: {printable(found)}",
        path=files.path,
        key="pre_tokenizer",
        hint=f"say 'pre_tokenizer: NAME' in the recipe with a name that splits alike; {similar}: {shown}",
    )
