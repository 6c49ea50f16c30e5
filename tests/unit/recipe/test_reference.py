"""References to other servers: addresses as Ollama stores them, source suffixes of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.model_name import parse_name
from modelbuild.recipe.reference import local_name, normalize_remote_host, split_source
from tests.recipes import Recipes

#: What Ollama's own code says (tests/data/go_requests/README.md).
CASES = json.loads((Path(__file__).parents[2] / "data" / "go_requests" / "references.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("https://ollama.com", "https://ollama.com:11434"),
        ("http://ollama.com/", "http://ollama.com:11434"),
        ("OLLAMA.com", "http://OLLAMA.com:11434"),
        ("/", "http://localhost:11434/"),
        ("/a/b/../../c/./d", "http://localhost:11434/c/d"),
        ("https://", "https://localhost:11434"),
        ("http:///p", "http://localhost:11434/p"),
        ("example.com:", "http://example.com:"),
        ("example.com", "http://example.com:11434"),
        ("https://example.com:8080/path/../other", "https://example.com:8080/other"),
        ("h/p//q/", "http://h:11434/p/q"),
        ("http://u:p@h/p?q=1#f", "http://u:p@h:11434/p?q=1#f"),
        ("HTTPS://EX.com", "https://EX.com:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[[::1]]:11434"),
        ("http://[::1]", "http://[[::1]]:11434"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://169.254.169.254/", "http://169.254.169.254:11434"),
    ],
)
def test_addresses_are_stored_as_ollama_stores_them(text: str, stored: str) -> None:
    """The text that is stored decides the model's digest, so upstream's oddities are kept."""
    assert stored == normalize_remote_host(text)


@pytest.mark.parametrize("text", ["x y", "%zz", "http://[::1]:namedport", "http://[::1", "a\nb", "http://h:8x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The message is Ollama's "bad remote"."""
    with pytest.raises(InputError, match="bad remote"):
        normalize_remote_host(text)


@pytest.mark.parametrize(
    ("text", "reference", "source"),
    [
        ("gpt-oss:20b:cloud", "gpt-oss:20b", "cloud"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b", "cloud"),
        ("gpt-oss:20B-CLOUD", "gpt-oss:20B", "cloud"),
        ("gpt-oss:cloud", "gpt-oss", "cloud"),
        ("m: cloud ", "m", "cloud"),
        ("h/n/m:t-cloud", "h/n/m:t", "cloud"),
        ("gpt-oss-cloud", "gpt-oss-cloud", ""),
        ("a:local", "a", "local"),
        ("  a  ", "a", ""),
    ],
)
def test_suffixes_name_the_source(text: str, reference: str, source: str) -> None:
    """A tag of cloud or local, or one that ends in -cloud, says where a model runs."""
    assert (reference, source) == split_source(text)


@pytest.mark.parametrize("text", ["m:-cloud", ":cloud", "m:cloud:local", "m:x-cloud:cloud", "m:cloud-cloud"])
def test_bad_suffixes_are_refused(recipes: Recipes, text: str) -> None:
    """Two suffixes, or a suffix of nothing, are no name; a recipe is told where."""
    (error,) = recipes.errors(f"model: m\nfrom: '{text}'\n")

    assert error.startswith("2:7 MODELNAME ")


def test_remote_models_need_no_sockets(recipes: Recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are texts; resolving a recipe opens no connection and looks up no name."""
    import socket

    def refuse(*arguments: object) -> None:
        raise AssertionError("a recipe opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)

    assert (
        "http://nowhere.invalid:11434" == recipes.model("model: m\nfrom: x\nremote_host: nowhere.invalid\n").remote_host
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']} {case['text']}"[:50])
def test_references_are_read_as_by_ollama(case: Mapping[str, str]) -> None:
    """Addresses, names and sources come out as Ollama's code makes them, or are refused where it refuses them."""
    assert case.get("value") == read(case["kind"], case["text"])


def read(kind: str, text: str) -> object:
    """What we make of a text, in the form of the expectations; None when it is refused."""
    try:
        if kind == "remote":
            return normalize_remote_host(text)
        if kind == "name":
            name = parse_name(text)
            return [name.host, name.namespace, name.model, name.tag, str(name)]
        return [*split_source(text), local_name(text)] if text.strip() else None
    except InputError:
        return None
