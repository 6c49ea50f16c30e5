"""Known chat templates: detection by edit distance."""

from __future__ import annotations

import hashlib

import pytest

from modelbuild.template import check_template, detect_template
from modelbuild.template.known import DISTANCE_LIMIT, known_template, load_known_templates
from modelbuild.template.variables import takes_messages, template_variables

#: SHA-256 of the Go templates that Ollama stores for these names.
SHIPPED_DIGESTS = {
    "alfred": "3d8766305b70e46ec57a4e70c46402fe677b2bbe0ba23af6caf8a6b534a92e42",
    "alpaca": "34ed3812a77d23f667b4dc1f63c7564df4ac4d02ff88cfba658debb8ca2b8059",
    "chatml": "e3b2721cec511e3a627ae0993753abbf5c72cdf4cfcdbc8f5c33ce15c4c4e04b",
    "codellama-70b-instruct": "144e31793e9ebbc833530d2e992d1fc4dcb5a221e137cc8038c4f863f89f494e",
    "llama3-instruct": "61dc7b1a77154f4015bbf548fb63b33550162cfd5d6cbf59b7e7843ece99a49e",
    "mistral-instruct": "c502cd9313888317b670db1c6d5698783656a22ea75101651baa2c94d42397fb",
    "openchat": "e4ef0210ea1e3e5794d5cc22e95b85f97cfa0be15c3d18ad4b20e6915dcc2266",
    "phi-3": "35360843d0c84fb1506952a131bbef13cd2bb4a541251f22535170c05b56e672",
    "starcoder2-instruct": "60851c266b6fdc5bc66b7993ba5e257e191569b02509514d6071ee10818472b9",
    "vicuna": "afb92aa3328db00d21faf8504790d8413c904b349b86fae332954bbe9c5899ca",
    "zephyr": "a212eb1556b15dc9c63813c9b91dc4a569b8a5fb248fad55b5489b07b48f1a43",
}
#: How the SHA-256 of the published chat templates begin, in the order of the index.
ENTRY_DIGESTS = [
    "91aa728a", "58c1a1f0", "66291cf0", "3ce2fe97", "901b10d4", "a805e50f", "153280e3", "79320228", "af9c0233",
    "bf61473d", "26a59556", "6de66c5b", "ea2472f2", "75678d46", "7e995b37", "e6f6e5c1", "f42d04ff", "f02c5341",
    "faf1f8b6", "993c0af7", "8aeba567", "ecd6ae51", "7de1c58e", "ba03a121", "e10ca381", "e84ee90c", "230527c8",
    "071cfb2d", "e8d5b5a5", "60584162", "268b6082", "b0e53f5e", "cd363688", "2c575663", "f6084d6e", "b8e5e922",
    "9db2cf47",
]  # fmt: skip
ENTRIES = [(index, name, text) for index, (name, text) in enumerate(load_known_templates().entries)]


@pytest.mark.parametrize(("index", "name", "text"), ENTRIES)
def test_every_entry_detects_itself(index: int, name: str, text: str) -> None:
    """The chat template of an entry is recognised as that entry, at distance 0."""
    found = detect_template(text)

    assert found is not None
    assert (name, 0, index) == (found.name, found.distance, found.index)


@pytest.mark.parametrize(("index", "name", "text"), ENTRIES)
def test_edits_are_counted(index: int, name: str, text: str) -> None:
    """Scattered edits are tolerated and counted one each."""
    step = max(1, len(text) // 20)
    edited = "".join("\u2603" if at % step == 0 else char for at, char in enumerate(text))
    edits = sum(at % step == 0 for at in range(len(text)))

    found = detect_template(edited)

    assert found is not None
    assert (name, edits, index) == (found.name, found.distance, found.index)


def test_limit() -> None:
    """99 edits are near enough, 100 are not."""
    text = {name: text for _, name, text in ENTRIES}["openchat"]

    near, far = detect_template(text + "\u2603" * 99), detect_template(text + "\u2603" * 100)

    assert near is not None
    assert ("openchat", 99, DISTANCE_LIMIT) == (near.name, near.distance, near.limit)
    assert far is None


@pytest.mark.parametrize("text", ["", "x" * 1_000_000, "{{ messages }}" * 40])
def test_unknown_templates(text: str) -> None:
    """An empty, an endless and an unrelated chat template are not recognised."""
    assert detect_template(text) is None


def test_stop_and_evidence() -> None:
    """Stop texts come with a detection; the evidence names the distance."""
    found = detect_template(ENTRIES[0][2] + "!")

    assert found is not None
    assert ("<|im_start|>", "<|im_end|>") == found.stop
    assert "chat template recognised as chatml (1 of at most 99 edits away, known template 1)" == found.evidence()


def test_index_has_ollamas_names_in_order() -> None:
    """37 entries for 19 of 20 names; ties go to the first."""
    known = load_known_templates()
    indexed = {name for name, _ in known.entries}

    assert 37 == len(known.entries)
    assert 20 == len(known.names)
    assert {"vicuna"} == set(known.names) - indexed
    assert ["chatml", "chatml", "zephyr", "chatml", "openchat"] == [name for name, _ in known.entries[:5]]


@pytest.mark.parametrize("name", load_known_templates().names)
def test_known_templates_parse(name: str) -> None:
    """Every shipped Go template is valid and takes messages."""
    assert takes_messages(template_variables(check_template(known_template(name))))


@pytest.mark.parametrize(("name", "digest"), SHIPPED_DIGESTS.items())
def test_digest_equals_ollamas(name: str, digest: str) -> None:
    """These templates have the bytes that Ollama stores, so both write the same manifest."""
    assert digest == hashlib.sha256(known_template(name).encode()).hexdigest()


def test_entries_are_the_published_texts() -> None:
    """Distances are counted from the texts that Ollama counts from."""
    assert ENTRY_DIGESTS == [hashlib.sha256(text.encode()).hexdigest()[:8] for _, _, text in ENTRIES]


def test_unknown_name() -> None:
    """A name that is not in the index is a KeyError, not a file look-up."""
    with pytest.raises(KeyError):
        known_template("../index")
