"""Action keys and the explanation of their differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelbuild.digest import Digest, digest_of
from modelbuild.plan.action import ActionManifest, Json, Kind, canonical_json, explain_difference, short_digest

A, B = digest_of(b"a"), digest_of(b"b")
BASE = ActionManifest(Kind.ASSEMBLE, 1, {"config.json": A, "model.safetensors": A}, {"preset": "Q4_K_M"})


def test_equal_manifests_have_equal_keys_whatever_the_order() -> None:
    """The order in which inputs and options were added does not matter."""
    other = ActionManifest(Kind.ASSEMBLE, 1, {"model.safetensors": A, "config.json": A}, {"preset": "Q4_K_M"})

    assert BASE.key == other.key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "assemble version 1 → 2"),
        ({"inputs": {"config.json": B, "model.safetensors": A}}, f"input config.json changed: {A[7:19]} → {B[7:19]}"),
        ({"inputs": {"config.json": A}}, "input model.safetensors is gone"),
        ({"inputs": {**BASE.inputs, "vocab.json": A}}, "new input vocab.json"),
        ({"options": {"preset": "Q8_0"}}, 'option preset: "Q4_K_M" → "Q8_0"'),
        ({"options": {}}, 'option preset: "Q4_K_M" → not set'),
        ({"options": {"preset": "Q4_K_M", "nested": {"a": 1}}}, 'option nested: not set → {"a": 1}'),
        ({"options": {"preset": "Q4_K_M", "seed": None}}, "option seed: not set → null"),
        (
            {"inputs": {**BASE.inputs, "config.json": Digest("blake3:" + "0" * 64)}},
            "input config.json is known by another digest: sha256 → blake3",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_change_alters_the_key_and_is_named(change: dict[str, object], reason: str) -> None:
    """Whatever determines the output is in the key, and the difference says exactly what changed."""
    changed = replace(BASE, **change)  # type: ignore[arg-type]

    assert BASE.key != changed.key
    assert (reason,) == explain_difference(BASE.encode(), changed.encode())


def test_nested_options_are_named_by_their_path() -> None:
    """A change deep in an option names the path to it, not the whole value."""
    before = replace(BASE, options={"parameters": {"stop": ["a"], "seed": 1}})
    after = replace(BASE, options={"parameters": {"stop": ["b"], "seed": 1}})

    assert ('option parameters.stop: ["a"] → ["b"]',) == explain_difference(before.encode(), after.encode())


def test_lists_of_words_read_like_words() -> None:
    """The layers of a model are named, without the marks of JSON; lists of anything else stay what they are."""
    before = replace(BASE, options={"layers": [["model", ""]], "sizes": [[1, "a"]]})
    after = replace(BASE, options={"layers": [["model", ""], ["adapter", "base:1"]], "sizes": [[1, "b"], []]})

    assert {"option layers: model → model, adapter base:1", 'option sizes: [[1, "a"]] → [[1, "b"], []]'} == set(
        explain_difference(before.encode(), after.encode())
    )


def test_another_kind_of_digest_is_no_change_of_the_file() -> None:
    """A file that is read tensor by tensor instead of as a whole is the same file; the kind of action is the reason."""
    before = ActionManifest(Kind.IMPORT, 1, {"source": A}, {})
    after = ActionManifest(Kind.ASSEMBLE, 2, {"source": Digest("blake3:" + "0" * 64)}, {"preset": "COPY"})

    reasons = explain_difference(before.encode(), after.encode())

    assert ("import → assemble", 'option preset: not set → "COPY"') == reasons


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.floats(0, 2) | st.sampled_from(["", "a"]),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from("ab"), values, max_size=2),
    max_leaves=4,
)
_OPTIONS = st.dictionaries(st.sampled_from(["parameters", "info"]), _VALUES)


@given(_OPTIONS, _OPTIONS)
@example({"parameters": {"temperature": 1}}, {"parameters": {"temperature": 1.0}})
@example({"info": {"a": None}}, {"info": {}})
def test_another_key_has_a_reason_and_only_then(before: dict[str, Json], after: dict[str, Json]) -> None:
    """Whatever the options hold: what runs says why, and equal manifests differ in nothing."""
    old, new = replace(BASE, options=before), replace(BASE, options=after)

    reasons = explain_difference(old.encode(), new.encode())

    assert (old.key != new.key) == bool(reasons)
    assert all(reasons)


def test_equal_manifests_differ_in_nothing() -> None:
    """No difference, no reason."""
    assert () == explain_difference(BASE.encode(), BASE.encode())


def test_canonical_json_is_ascii_without_blanks() -> None:
    """The form that is hashed does not depend on locale or spelling."""
    assert '{"a":[1,"\\u00e9"],"b":null}' == canonical_json({"b": None, "a": (1, "é")})


@pytest.mark.parametrize("digest", [A, A.replace("sha256", "blake3")])
def test_short_digest_drops_the_algorithm(digest: str) -> None:
    """People see twelve hex digits."""
    assert digest[7:19] == short_digest(digest)
