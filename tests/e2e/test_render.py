"""`modelbuild render`: the prompt of files, GGUFs and stored models."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from modelbuild.template.known import load_known_templates
from tests.space import Space

MESSAGES = '[{"role": "user", "content": "hi \\u001b[31m"}]'


def gguf(chat_template: str) -> bytes:
    """A GGUF without tensors that holds a chat template."""
    text = b""
    for key, value in (("general.architecture", "llama"), ("tokenizer.chat_template", chat_template)):
        for part in (key.encode(), None, value.encode()):
            text += struct.pack("<I", 8) if part is None else struct.pack("<Q", len(part)) + part
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + text


def test_template_file(space: Space) -> None:
    """A template at a path is rendered with messages; control characters are shown escaped unless --raw is given."""
    path = space.write("chat.tmpl", "{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}")
    messages = space.write("messages.json", MESSAGES)

    shown = space.run("render", path, "--messages", messages)
    raw = space.run("render", path, "--messages", messages, "--raw")

    assert (0, "<user>hi \\u{1b}[31m") == (shown.status, shown.stdout)
    assert "<user>hi \x1b[31m" == raw.stdout


def test_stored_model(space: Space) -> None:
    """A stored model brings its template, system text and messages."""
    space.recipe(
        "model: far\nfrom: gpt-oss:120b\nremote_host: https://models.example.com\nsystem: Be kind.\n"
        'template: "{{ .System }}|{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}"\n'
        "messages: [{role: user, content: a}, {role: assistant, content: b}]\n"
    )
    space.build()

    shown = space.run("render", "far", "--prompt", "c")
    other = space.run("render", "far", "--prompt", "c", "--system", "Be brief.", "--json")

    assert "Be kind.|system:Be kind.;user:a;assistant:b;user:c;" == shown.stdout
    assert "Be brief.|system:Be brief.;user:a;assistant:b;user:c;" == json.loads(other.stdout)["prompt"]


def test_gguf_with_a_known_chat_template(space: Space) -> None:
    """A GGUF gives the known template that a build would choose; with --jinja its own."""
    pytest.importorskip("jinja2")
    path = space.write("m.gguf", gguf(dict(load_known_templates().entries)["phi-3"]))

    known = space.run("render", path, "--prompt", "hi")
    own = space.run("render", path, "--prompt", "hi", "--jinja")

    assert "<|user|>\nhi<|end|>\n<|assistant|>\n" == known.stdout
    assert "<|user|>\nhi<|end|>\n<|assistant|>\n" == own.stdout


def test_unknown_chat_template_is_not_run_unasked(space: Space) -> None:
    """A chat template that is not known is data until the user asks for the sandbox."""
    path = space.write("m.gguf", gguf("{{ ''.__class__.__mro__ }}{% for a in b %}{% endfor %}"))

    outcome = space.run("render", path, "--prompt", "hi")

    assert 1 == outcome.status
    assert "add --jinja to render it in a sandbox" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./bad.tmpl", "--prompt", "x"], "bad.tmpl:2:4: unclosed action"),
        (["./good.tmpl"], "nothing to render"),
        (["./good.tmpl", "--prompt", "x", "--messages", "m.json"], "not both"),
        (["./missing.tmpl", "--prompt", "x"], "no such file"),
        (["nobody", "--prompt", "x"], "no model"),
        (["good.tmpl", "--prompt", "x"], "write ./good.tmpl"),
    ],
)
def test_mistakes(space: Space, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    """Every mistake is one message that says what to do."""
    space.write("bad.tmpl", "a\n{{ ")
    space.write("good.tmpl", "{{ .Prompt }}")
    space.write("m.json", MESSAGES)
    monkeypatch.chdir(space.root)

    outcome = space.run("render", *arguments)

    assert outcome.status in (1, 2)
    assert message in outcome.stderr


@pytest.mark.parametrize(
    "template",
    ["\x1b[31m{{ .Prompt }}", "a\r\n{{ .Prompt }}\r\n", "\ufeff{{ .Prompt }}"],
    ids=["escape bytes", "CRLF", "byte order mark"],
)
def test_odd_template_is_stored_as_it_is_and_shown_escaped(space: Space, template: str) -> None:
    """The layer has the file's bytes; what a terminal would act on is escaped by default."""
    space.write("chat.tmpl", template.encode())
    space.recipe(
        "model: far\nfrom: gpt-oss:120b\nremote_host: https://models.example.com\ntemplate: {file: chat.tmpl}\n"
    )
    space.build()

    digest = hashlib.sha256(template.encode()).hexdigest()
    assert template.encode() == (space.store / "blobs" / f"sha256-{digest}").read_bytes()
    assert "\x1b" not in space.run("show", "far").stdout
    assert "\x1b" not in space.run("render", "far", "--prompt", "x").stdout


def test_empty_template_makes_no_layer(space: Space) -> None:
    """An empty template is no template."""
    space.recipe('model: far\nfrom: gpt-oss:120b\nremote_host: https://models.example.com\ntemplate: ""\n')
    space.build()

    assert "image.template" not in (next(space.store.glob("manifests/**/latest"))).read_text()


@pytest.mark.parametrize(
    ("options", "shown"),
    [((), "false|false|"), (("--think",), "true|true|medium"), (("--think", "low"), "true|true|low"),
     (("--think", "false"), "false|true|")],
)  # fmt: skip
def test_thinking_can_be_asked_for(space: Space, options: tuple[str, ...], shown: str) -> None:
    """Alone or with how much; not asking is not the same as asking not to."""
    path = space.write("t.tmpl", "{{ range .Messages }}{{ end }}{{ .Think }}|{{ .IsThinkSet }}|{{ .ThinkLevel }}")

    assert shown == space.run("render", path, "--prompt", "x", *options).stdout


@pytest.mark.parametrize("is_in_config", [True, False])
def test_checkpoint_gives_the_template_that_a_build_takes(space: Space, is_in_config: bool) -> None:
    """From tokenizer_config.json, with the odd numbers that such files hold, or from a file of its own."""
    known = dict(load_known_templates().entries)["phi-3"]
    in_config = f', "chat_template": {json.dumps(known)}' if is_in_config else ""
    space.write("c/tokenizer_config.json", f'{{"model_max_length": 1000000000000000019884624838656{in_config}}}')
    space.write("c/config.json", "{}")
    space.write("c/model.safetensors", b"")
    if not is_in_config:
        space.write("c/chat_template.jinja", known)

    shown = space.run("render", "./c", "--prompt", "hi", "--json")

    assert 0 == shown.status, shown.stderr
    assert "recognised as phi-3" in shown.stdout
