"""Chat templates in all the places where checkpoints keep them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import InputError
from tests.checkpoints import convert, keys_of, write_checkpoint


def template_keys(directory: Path) -> dict[str, object]:
    return {key: value for key, value in keys_of(convert(directory)).items() if "chat_template" in key}


def test_text_of_the_configuration(tmp_path: Path) -> None:
    """It goes before files of its own."""
    directory = write_checkpoint(
        tmp_path / "m", tokenizer_config__json={"chat_template": "A"}, chat_template__jinja="B"
    )

    assert {"tokenizer.chat_template": "A"} == template_keys(directory)


def test_named_templates_keep_their_order(tmp_path: Path) -> None:
    """Names become plain, the default has its own key."""
    named = [{"name": name, "template": name.upper()} for name in ("tool-use", "default", "rag")]
    directory = write_checkpoint(tmp_path / "m", tokenizer_config__json={"chat_template": named})

    assert [
        ("tokenizer.chat_template.tool_use", "TOOL-USE"),
        ("tokenizer.chat_template.rag", "RAG"),
        ("tokenizer.chat_templates", ["tool_use", "rag"]),
        ("tokenizer.chat_template", "DEFAULT"),
    ] == list(template_keys(directory).items())


def test_files_of_their_own(tmp_path: Path) -> None:
    """The default, and others by file name."""
    directory = write_checkpoint(tmp_path / "m", chat_template__jinja="B")
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "x y.jinja").write_text("C")

    assert {
        "tokenizer.chat_template.x_y": "C",
        "tokenizer.chat_templates": ["x_y"],
        "tokenizer.chat_template": "B",
    } == template_keys(directory)


def test_json_file(tmp_path: Path) -> None:
    """An older place."""
    directory = write_checkpoint(tmp_path / "m", chat_template__json={"chat_template": "D"})

    assert {"tokenizer.chat_template": "D"} == template_keys(directory)


@pytest.mark.parametrize("value", [3, ["x"], [{"name": 1, "template": "x"}], "x" * ((1 << 20) + 1)])
def test_malformed_templates_are_refused(tmp_path: Path, value: object) -> None:
    """TEMPLATE."""
    directory = write_checkpoint(tmp_path / "m", tokenizer_config__json={"chat_template": value})

    with pytest.raises(InputError) as caught:
        convert(directory)

    assert "TEMPLATE" == caught.value.code
