"""The grammar of Modelfiles: words, values, quotes, encodings, and what is refused with which text."""

from __future__ import annotations

import time

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.modelfile import (
    COMMAND_LIMIT,
    SIZE_LIMIT_BYTES,
    Command,
    ModelfileError,
    format_modelfile,
    parse_modelfile,
)


def _commands(text: str | bytes) -> list[tuple[str, str, str]]:
    data = text.encode() if isinstance(text, str) else text
    return [(item.name, item.key, item.argument) for item in parse_modelfile(data, "Modelfile")]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("FROM base", [("from", "", "base")]),
        ("from base\n", [("from", "", "base")]),
        ("FrOm \t base  \n", [("from", "", "base")]),
        ("FROM a # b\n", [("from", "", "a # b")]),
        ("# c\n  # d\n\nFROM a\n#e", [("from", "", "a")]),
        ("FROM lemons make lemonade \n", [("from", "", "lemons make lemonade")]),
        ('FROM "a b"\n', [("from", "", "a b")]),
        ("FROM 'a'\n", [("from", "", "'a'")]),
        ("FROM a\rSYSTEM b\r", [("from", "", "a"), ("system", "", "b")]),
        ("FROM a\r\nSYSTEM b\r\n", [("from", "", "a"), ("system", "", "b")]),
        ("FROM a\nSYSTEM   \n", [("from", "", "a"), ("system", "", "")]),
        ('FROM a\nSYSTEM ""\n', [("from", "", "a"), ("system", "", "")]),
        ('FROM a\nSYSTEM """"""\n', [("from", "", "a"), ("system", "", "")]),
        ('FROM a\nSYSTEM """b\n"c" # d\n"""  \n', [("from", "", "a"), ("system", "", 'b\n"c" # d\n')]),
        ('FROM a\nSYSTEM "b\nc"\n', [("from", "", "a"), ("system", "", "b\nc")]),
        ('FROM a\nSYSTEM say "hi"\n', [("from", "", "a"), ("system", "", 'say "hi"')]),
        ('FROM a\nSYSTEM "x" y\nz"\n', [("from", "", "a"), ("system", "", 'x" y\nz')]),
        ("FROM a\nPARAMETER temperature   1\n", [("from", "", "a"), ("parameter", "temperature", "1")]),
        ("FROM a\nPARAMETER  temperature 1\n", [("from", "", "a"), ("parameter", "", "temperature 1")]),
        ("PARAMETER seed 1\nFROM a\n", [("parameter", "seed", "1"), ("from", "", "a")]),
        ("FROM a\nMESSAGE user hi: there\n", [("from", "", "a"), ("message", "user", "hi: there")]),
        ("FROM a\nSYSTEM a\u00a0b\u200bc\u0001d\te\u3000f\n", [("from", "", "a"), ("system", "", "abcd\tef")]),
        ("FROM a\nSYSTEM b\0c\n", [("from", "", "a"), ("system", "", "bc")]),
        ("FROM a\n\0SYSTEM b\n", [("from", "", "a"), ("system", "", "b")]),
        (b"\xef\xbb\xbfFROM \xc3\xa9", [("from", "", "é")]),
        ("FROM é\nSYSTEM 😀\n".encode("utf-16"), [("from", "", "é"), ("system", "", "😀")]),
        (b"\xfe\xff" + "FROM é\n".encode("utf-16-be"), [("from", "", "é")]),
        (b"FROM caf\xe9\n", [("from", "", "caf\ufffd")]),
    ],
)
def test_texts_are_read_as_ollama_reads_them(text: str | bytes, commands: list[tuple[str, str, str]]) -> None:
    """Words, blanks, quotes, comments, newlines and encodings, one rule each."""
    assert commands == _commands(text)


_ANY = 'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", '
_ANY += '"parameter", "message", or "requires"'


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("FROM a\n\nFOO bar\n", (3, 1), f"(line 3): {_ANY}"),
        ("FROM a\nSYSTEM\nPARAMETER seed 1\n", (2, 1), f"(line 3): {_ANY}"),
        ("FROM a\n  1x y\n", (2, 3), f"(line 2): {_ANY}"),
        ("FROM a\n\0\0SYSTEM b\n", (2, 1), f"(line 2): {_ANY}"),
        ("FROM a\r\nFOO b\r\n", (3, 1), f"(line 3): {_ANY}"),
        ("FROM a\nMESSAGE tool x\n", (2, 13), '(line 2): message role must be one of "system", "user", or "assistant"'),
        ("FROM a\nMESSAGE  user x\n", (2, 9), '(line 2): message role must be one of "system", "user", or "assistant"'),
        ("FROM a\nMESSAGE user\n", (2, 13), "unexpected EOF: user"),
        ("FROM a\nPARAMETER temperature\n", (2, 22), "unexpected EOF: temperature"),
        ("FROM a\nPARAMETER te-mp 1\n", (2, 13), "unexpected EOF: te"),
        ('FROM a\nSYSTEM """b\nc\n', (2, 8), "unexpected EOF"),
        ('FROM a\nSYSTEM "\n', (2, 8), "unexpected EOF"),
        ('FROM a\nSYSTEM """b\nc" d\n', (2, 8), "unexpected EOF"),
        ("FROM", (1, 5), "unexpected EOF"),
        ("FROM a\nPARAMETER seed", (2, 15), "unexpected EOF"),
        ("", (1, 1), "no FROM line"),
        ("# only\n", (1, 1), "no FROM line"),
        ("SYSTEM a\n", (1, 1), "no FROM line"),
    ],
)
def test_mistakes_have_ollamas_text_and_a_place(text: str, place: tuple[int, int], message: str) -> None:
    """Each fault is refused with the text that Ollama shows, and with the line and column that it does not show."""
    with pytest.raises(ModelfileError) as caught:
        parse_modelfile(text.encode(), "Modelfile")

    assert (message, place) == (caught.value.message, (caught.value.line, caught.value.column))


def test_values_know_where_they_begin() -> None:
    """Line and column of a command are those of its value."""
    commands = parse_modelfile(b'FROM a\n\nSYSTEM   """b\nc"""\n PARAMETER stop  x\n', "Modelfile")

    assert [(1, 6), (3, 10), (5, 18)] == [(item.line, item.column) for item in commands]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("plain", "SYSTEM plain"),
        ("two\nlines", 'SYSTEM "two\nlines"'),
        (' "edge ', 'SYSTEM """ "edge """'),
        ('say "hi"\nthere', 'SYSTEM """say "hi"\nthere"""'),
        ('"quoted"', 'SYSTEM """"quoted""""'),
        ("", 'SYSTEM ""'),
    ],
)
def test_arguments_are_quoted_where_they_have_to_be(argument: str, text: str) -> None:
    """A value is quoted only where it would read otherwise without."""
    assert f"FROM a\n{text}\n" == format_modelfile([Command("from", "a"), Command("system", argument)])
    assert [("from", "", "a"), ("system", "", argument)] == _commands(f"FROM a\n{text}\n")


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (SIZE_LIMIT_BYTES + 1),
        b"FROM a\n" + b"LICENSE x\n" * COMMAND_LIMIT,
        b'FROM a\nSYSTEM """' + b"x\n" * 1_000_000,
        b'FROM a\nSYSTEM """' + b'""\n' * 900_000,
        b'FROM a\nSYSTEM """\0' + b'""\n' * 300_000,
        b"FROM a\nSYSTEM " + b"x" * 4_000_000,
        b" " * 4_000_000,
        b"#" * 4_000_000,
        b"F" * 4_000_000,
    ],
    ids=[
        "too large",
        "too many commands",
        "open quotes",
        "quotes that do not close",
        "dropped characters",
        "long line",
        "blanks",
        "comment",
        "word",
    ],
)
def test_hostile_modelfiles_end_quickly(data: bytes) -> None:
    """Size, number of commands and quotes are bounded in time."""
    start_s = time.process_time()

    code = ""
    try:
        parse_modelfile(data, "Modelfile")
    except InputError as error:
        code = error.code

    assert code in ("", "LIMIT", "MODELFILE")
    assert time.process_time() - start_s < 1
