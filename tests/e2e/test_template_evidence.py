"""What `explain` says about a recognised chat template."""

from __future__ import annotations

from modelbuild.formats.gguf.writer import string
from modelbuild.template.known import load_known_templates
from tests.small_gguf import llama_keys, write_gguf
from tests.space import Space


def test_explain_shows_which_template_and_how_surely(space: Space) -> None:
    """Before the first build and after it; with the number of edits, and whether it is used."""
    known = load_known_templates().entries[4]
    space.write("m.gguf", write_gguf([*llama_keys(), string("tokenizer.chat_template", known[1] + "!!!")]))
    space.recipe("model: m\nfrom: ./m.gguf\n")
    line = f"chat template recognised as {known[0]} (3 of at most 99 edits away, known template 5)"

    assert line in space.run("explain").stdout
    space.build()
    assert line in space.run("explain").stdout

    space.recipe("model: m\nfrom: ./m.gguf\ntemplate: '{{ .Prompt }}'\n")
    assert f"{line}; not used, because the recipe has a template" in space.run("explain").stdout
    space.recipe("model: m\nfrom: ./m.gguf\ntemplate: null\n")
    assert "recognised" not in space.run("explain").stdout


def test_explain_says_when_no_template_is_known(space: Space) -> None:
    """And says nothing where there is none at all."""
    space.write("odd.gguf", write_gguf([*llama_keys(), string("tokenizer.chat_template", "no such template " * 20)]))
    space.write("plain.gguf", write_gguf())
    space.recipe("models:\n  odd: {from: ./odd.gguf}\n  plain: {from: ./plain.gguf}\n")

    assert 1 == space.run("explain").stdout.count("none of the known ones")
