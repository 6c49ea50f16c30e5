"""Model names: grammar, defaults and display form."""

from __future__ import annotations

import pytest

from modelbuild.errors import InputError
from modelbuild.model_name import ModelName, parse_name

VALID = [
    ("m", "registry.ollama.ai/library/m:latest"),
    ("ns/m:t", "registry.ollama.ai/ns/m:t"),
    ("h:80/ns/m", "h:80/ns/m:latest"),
    ("localhost/x", "registry.ollama.ai/localhost/x:latest"),
    ("REGISTRY.ollama.ai/LIBRARY/M:T", "REGISTRY.ollama.ai/LIBRARY/M:T"),
    ("_a", "registry.ollama.ai/library/_a:latest"),
    ("a..b", "registry.ollama.ai/library/a..b:latest"),
    ("m:t-", "registry.ollama.ai/library/m:t-"),
    ("h-/n/m", "h-/n/m:latest"),
    ("http://h/n/m:t", "h/n/m:t"),
    ("x.y-z_1:v1.2", "registry.ollama.ai/library/x.y-z_1:v1.2"),
    ("a" * 80 + ":" + "b" * 80, f"registry.ollama.ai/library/{'a' * 80}:{'b' * 80}"),
    ("h" * 350 + "/n/m", f"{'h' * 350}/n/m:latest"),
]

INVALID = [
    "", "m:", "/m", "m/", ":a", "h//m", "a/:t", "-a", ".a", "m:-t", "n.s/m", "m t", "é", "a:b/c", "a:b:c", "~/x", "./x",
    "/abs/x", "@", "m@sha256:abc", "a/b/c/d", "a/b/c/d/e", "..", "../x", "x/../y", "x:.", "x:..", "x\\y", "x\n", "x\0",
    "http://m", "a" * 81, "m:" + "t" * 81, "n" * 81 + "/m", "h" * 351 + "/n/m", "m:t\n", "m" * 100_000,
]  # fmt: skip

SHORT = [
    ("m", "m:latest"),
    ("REGISTRY.ollama.ai/LIBRARY/M:T", "M:T"),
    ("ns/m:t", "ns/m:t"),
    ("registry.ollama.ai/ns/m", "ns/m:latest"),
    ("h:80/library/m", "h:80/library/m:latest"),
]


def _full(name: ModelName) -> str:
    return f"{name.host}/{name.namespace}/{name.model}:{name.tag}"


@pytest.mark.parametrize(("text", "full"), VALID)
def test_valid_names_get_their_defaults(text: str, full: str) -> None:
    """Missing parts take the default, given parts keep their spelling."""
    assert full == _full(parse_name(text))


@pytest.mark.parametrize("text", INVALID)
def test_names_outside_the_grammar_are_refused(text: str) -> None:
    """Every broken name is one MODELNAME error, whatever is wrong with it."""
    with pytest.raises(InputError) as caught:
        parse_name(text)

    assert "MODELNAME" == caught.value.code
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(("text", "short"), SHORT)
def test_short_form_leaves_defaults_out(text: str, short: str) -> None:
    """Default host and namespace are dropped whatever their case, the tag never is."""
    assert short == str(parse_name(text))


@pytest.mark.parametrize("text", [text for text, _ in VALID])
def test_short_form_reads_back_as_the_same_model(text: str) -> None:
    """Parsing the display form gives the same model up to the case of default parts."""
    name = parse_name(text)

    assert _full(name).lower() == _full(parse_name(str(name))).lower()


def test_manifest_path_uses_the_parts_verbatim() -> None:
    """A host with a port stands in the path as it is."""
    assert "h:80/ns/m/T" == str(parse_name("h:80/ns/m:T").relative_path)
