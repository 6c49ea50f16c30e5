"""What is given in the wrong place is named for what it is, with what to type instead; nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Space


@pytest.fixture
def place(space: Space) -> Space:
    """A recipe, a GGUF file and a checkpoint."""
    space.write("m.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./m.gguf\n")
    write_checkpoint(space.root / "checkpoint")
    (space.root / "empty").mkdir()
    return space


#: Arguments, and what the error has to say.
CASES = {
    "weights as a recipe": (["build", "m.gguf"], ["m.gguf:1:1: a GGUF file", "modelbuild init m.gguf"]),
    "weights to format": (["fmt", "m.gguf"], ["m.gguf:1:1: a GGUF file", "modelbuild init m.gguf"]),
    "a directory with a recipe": (["build", "."], ["a directory", "name the file: recipe.yaml"]),
    "a checkpoint as a recipe": (["plan", "checkpoint"], ["a directory", "modelbuild init checkpoint"]),
    "a directory": (["validate", "empty"], ["a directory", "a recipe is a YAML file"]),
    "weights as an archive": (["import", "m.gguf"], ["m.gguf: a GGUF file", "modelbuild export", "modelbuild init"]),
    "a recipe as an archive": (["import", "recipe.yaml"], ["recipe.yaml: no archive"]),
    "no lock": (["build", "recipe.yaml", "--locked"], ["recipe.lock: no such file", "--update-lock"]),
    "a model as a recipe": (["build", "m"], ["m: no such file", "a model is named behind its recipe: recipe.yaml m"]),
    "a recipe to explain": (["explain", "recipe.yaml"], ["recipe.yaml is a file", "--recipe recipe.yaml"]),
    "a model to inspect": (["inspect", "coder"], ["coder: no such file", "'modelbuild show NAME'"]),
    "a path to show": (["show", "./checkpoint"], ["invalid model name", "'modelbuild inspect PATH'"]),
    "no recipe": (["build", "zz.yml"], ["zz.yml: no such file", "'modelbuild init SOURCE'"]),
    "a command of Ollama": (["create", "m"], ["no command 'create'; did you mean 'build'?"]),
    "running a model": (["run", "m"], ["no command 'run'; 'ollama run' starts what was built"]),
    "a file as the cache": (["--cache", "m.gguf", "build"], ["m.gguf", "--cache"]),
    "a file as the store": (["--store", "m.gguf", "list"], ["m.gguf", "Not a directory", "--store"]),
    "a port that is none": (["pull", "localhost:99999/a/b"], ["'localhost:99999'", "up to 65535"]),
    "no registry": (["serve", "--allow-registry", "a b"], ["--allow-registry", "'a b'", "HOST:PORT"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_in_the_wrong_place(place: Space, name: str) -> None:
    """The error names the thing and says what to type."""
    arguments, parts = CASES[name]

    outcome = place.run(*arguments)

    assert outcome.status in (1, 2)
    assert [] == [part for part in parts if part not in outcome.stderr], outcome.stderr
    assert "Errno" not in outcome.stderr


#: Lines of a recipe behind its first two, and what the error has to say.
LINES = {
    "metadata: {'': 1}": ["recipe.yaml:3:12: a key of 0 bytes"],
    "extends: other": ["recipe.yaml:3:10:", "below 'models:'"],
    "imatrix: ./m.gguf\nquantize: Q8_0": ["m.gguf", "no importance matrix", "llama-imatrix"],
    "imatrix: ./recipe.yaml\nquantize: Q8_0": ["recipe.yaml: offset 0", "llama-imatrix"],
    "\tsystem: x": ["recipe.yaml:3:1:", "a tab stands here: indent with spaces"],
    "parameters:\n\tseed: 1": ["recipe.yaml:4:1:", "a tab stands here: indent with spaces"],
    "system: @x": ["recipe.yaml:3:9:", "quote text that starts with @"],
    "system:x": ["a key needs ': ' after it"],
    "system: a: b": ["recipe.yaml:3:10:", "quote text that holds ': '"],
    "system: ${HOME}\nvariables: {a: 1}": ["recipe.yaml:3:9:", "declare it: variables: {HOME: {env: HOME}}"],
    "template: '{% if x %}{{ x }}'": ["recipe.yaml:3:25:", "this looks like Jinja"],
    "outputs: {gguf: ./empty}": ["recipe.yaml:3:17: empty: a directory", "name a file in it: PATH/NAME.gguf"],
    "matrix: {quantise: [Q8_0]}": ["recipe.yaml:3:10: the axis 'quantise' has no effect", "did you mean 'quantize'?"],
    "imatrix: ./no.gguf\nquantize: Q8_0": ["recipe.yaml:3:10: no.gguf: no such file", "did you mean m.gguf?"],
}


@pytest.mark.parametrize("lines", LINES)
def test_what_a_recipe_cannot_mean(place: Space, lines: str) -> None:
    """Each mistake has a place and something to do about it."""
    place.recipe(f"model: m\nfrom: ./m.gguf\n{lines}\n")

    outcome = place.run("build")

    assert outcome.status in (1, 2)
    assert [] == [part for part in LINES[lines] if part not in outcome.stderr], outcome.stderr
    assert set() == place.files()


#: What `from` may say that is not there, and what to do about it.
BASES = {
    "m.gguf": "a file or directory is named with ./ in front: ./m.gguf",
    "checkpoint": "a file or directory is named with ./ in front: ./checkpoint",
    "elsewhere.gguf": "a file or directory is named with ./ in front: ./elsewhere.gguf",
    "kept/modle": "did you mean kept/model:latest?",
    "qwen9": "a model is built first, or fetched with 'modelbuild pull registry.ollama.ai/library/qwen9:latest'",
    "127.0.0.1:9/a/b:c": "a model is built first, or fetched with 'modelbuild pull 127.0.0.1:9/a/b:c'",
}


@pytest.mark.parametrize("base", BASES)
def test_base_that_is_not_in_the_store(place: Space, base: str) -> None:
    """A path without its dot, a mistyped name and a model that was never fetched are told apart."""
    place.recipe("model: kept/model\nfrom: ./m.gguf\n")
    place.build()
    place.recipe(f"model: m\nfrom: {base}\n")

    outcome = place.run("plan")

    assert 2 == outcome.status
    assert f"hint: {BASES[base]}" in outcome.stderr.replace("a file or directory is named with ./ in front; ", "")


def test_the_tag_that_all_have_makes_no_names_alike(place: Space) -> None:
    """Who asks for a model that is not there is not sent to one of another name."""
    place.build()

    assert "hint: see 'modelbuild list'" in place.run("show", "coder").stderr
    assert "hint: did you mean m:latest?" in place.run("show", "m:q4").stderr


def test_all_sources_that_are_missing_are_shown_at_once(place: Space) -> None:
    """Of every model and every field, not only of the first."""
    place.recipe(
        "models:\n"
        "  a: {from: ./chekpoint, adapters: ./lora, imatrix: ./i.dat, quantize: Q8_0}\n"
        "  b: {files: [./x.gguf, ./y.gguf]}\n"
        "  c: {from: ./m.gguf, draft_files: ./d.gguf}\n"
    )

    found = [line for line in place.run("build").stderr.splitlines() if "no such file" in line]

    assert [(2, 13), (2, 36), (2, 53), (3, 15), (3, 25), (4, 36)] == [
        tuple(map(int, line.partition("recipe.yaml:")[2].split(":")[:2])) for line in found
    ]


def test_two_models_of_one_name_are_shown_beside_other_mistakes(place: Space) -> None:
    """A third model with a mistake of its own does not hide them."""
    place.recipe(
        "models:\n  a: {from: ./m.gguf, model: x}\n  b: {from: ./m.gguf, model: X}\n  c: {from: ./m.gguf, model: a b}\n"
    )

    said = place.run("validate").stderr

    assert "recipe.yaml:3:30: a second model named X:latest" in said
    assert "recipe.yaml:4:30: invalid model name: 'a b'" in said


@pytest.mark.parametrize("command", ["plan", "explain", "graph", "build", "validate"])
def test_what_is_doubtful_is_said_by_every_command_that_reads_it(place: Space, command: str) -> None:
    """A mistyped parameter or field of a template is a warning with its place."""
    place.recipe("model: m\nfrom: ./m.gguf\nparameters: {temprature: 1}\ntemplate: '{{ .Sytem }}'\n")

    outcome = place.run(command)

    assert 0 == outcome.status
    assert "warning: recipe.yaml:3:14: unknown parameter 'temprature'" in outcome.stderr
    assert "warning: recipe.yaml:4:15: no conversation has .Sytem; did you mean .System?" in outcome.stderr


def test_mistyped_field_of_a_template_in_a_file(place: Space) -> None:
    """The place is in the template's file, and where the recipe names it is said."""
    place.write("t.tmpl", "hi\n{{ .prompt }}")
    place.recipe("model: m\nfrom: ./m.gguf\ntemplate: {file: t.tmpl}\n")

    said = place.run("validate").stderr

    assert "t.tmpl:2:4: no conversation has .prompt (named at recipe.yaml:3:18); did you mean .Prompt?" in said


@pytest.mark.parametrize("text", ["FROM ./m.gguf\nSYSTEM hi\n", "FROM ./m.gguf\nSYSTEM hi: there\n"])
def test_modelfile_under_the_name_of_a_recipe(place: Space, text: str) -> None:
    """It is known for what it is, whatever YAML makes of it."""
    place.recipe(text)

    assert "hint: is this a Modelfile?" in place.run("build").stderr


@pytest.mark.parametrize("models", ["", " [{name: a}]", " x"])
def test_models_that_are_no_mapping(place: Space, models: str) -> None:
    """What stands below 'models' is shown."""
    place.recipe(f"models:{models}\n")

    assert "hint: write the key of a model, a colon, and its fields indented below it" in place.run("build").stderr


def test_expression_in_a_name_where_there_are_none(place: Space) -> None:
    """The braces are not just wrong characters."""
    place.recipe("model: m-${TAG}\nfrom: ./m.gguf\n")

    assert "hint: ${…} is an expression where the recipe has 'variables:' or a matrix" in place.run("build").stderr


@pytest.mark.parametrize("text", ["x\n", "- a\n", "[1]\n"])
def test_what_is_no_recipe_at_all(place: Space, text: str) -> None:
    """Who has no recipe yet learns how one begins."""
    place.recipe(text)

    assert "hint: begin with 'model: NAME'" in place.run("build").stderr


def test_one_file_of_a_checkpoint(place: Space) -> None:
    """Weights without their config are not enough, and the directory is what to name."""
    place.recipe("model: m\nfrom: ./checkpoint/model.safetensors\n")

    outcome = place.run("build")

    assert 2 == outcome.status
    assert "name the one that this file stands in" in outcome.stderr


def test_registry_that_is_not_there(place: Space) -> None:
    """The reason is in words, with something to check."""
    outcome = place.run("pull", "127.0.0.1:9/a/b:c")

    assert 1 == outcome.status
    assert "127.0.0.1:9: connection refused" in outcome.stderr
    assert "hint: is the name of the registry right" in outcome.stderr
    assert not (Path(place.root) / "models" / "manifests" / "127.0.0.1:9").exists()


def test_messages_of_another_shape(place: Space) -> None:
    """The file is named beside the place in it."""
    place.write("talk.json", '[{"role": 1}]')
    place.write("chat.gotmpl", "{{ range .Messages }}{{ .Content }}{{ end }}")

    outcome = place.run("render", "./chat.gotmpl", "--messages", "talk.json")

    assert "talk.json: messages[0].role: text expected" in outcome.stderr


def test_gc_says_once_what_to_do(place: Space) -> None:
    """A damaged manifest is named with its place and one piece of advice."""
    place.build()
    manifest = place.store / "manifests/registry.ollama.ai/library/m/latest"
    manifest.write_bytes(b"{")

    outcome = place.run("gc")

    assert 1 == outcome.status
    assert str(manifest) in outcome.stderr
    assert 1 == outcome.stderr.count("hint:")


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", LONG],
        ["render", f"./{LONG}", "--prompt", "x"],
        ["show", f"{LONG}/n/m:t"],
        ["rm", f"{LONG}/n/m:t"],
        ["copy", "m", f"{LONG}/n/m:t"],
        ["pull", f"{LONG}/n/m:t"],
        ["pull", "a..b/n/m:t"],
        ["init", "m.gguf", "--name", "a b", "--output", "new.yaml"],
        ["init", "recipe.yaml", "--output", "new.yaml"],
        ["init", "/dev/zero", "--output", "new.yaml"],
        ["import", "Modelfile", "--name", "a b"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_names_that_nothing_can_have(place: Space, arguments: list[str]) -> None:
    """They are refused as such, and no file is written for them."""
    place.build()
    place.write("Modelfile", "FROM ./m.gguf\n")
    before = place.files()

    outcome = place.run(*arguments)

    assert outcome.status in (1, 2)
    assert outcome.stderr.startswith("error: ")
    assert before == place.files()
    assert not (place.root / "new.yaml").exists()


@pytest.mark.parametrize(
    ("text", "hint"),
    [("FROM x\nSYSTEM a\n\n  b\n", "is this a Modelfile?"), ("- a\n-  b\n", "begin with 'model: NAME'")],
)
def test_fmt_leaves_alone_what_is_no_recipe(place: Space, text: str, hint: str) -> None:
    """YAML reads nearly every text; what a Modelfile or a note means would not survive a new layout."""
    path = place.write("Modelfile", text)

    outcome = place.run("fmt", "Modelfile")

    assert 2 == outcome.status
    assert "Modelfile:1:1: a mapping of fields expected" in outcome.stderr
    assert hint in outcome.stderr
    assert text == path.read_text()


def test_sources_of_names_that_no_file_can_have(place: Space) -> None:
    """A name that is too long is of no file, too."""
    place.recipe(f"model: m\nfrom: ./{LONG}\nadapters: ./{LONG}/x\n")

    outcome = place.run("build")

    assert 2 == outcome.status
    assert 2 == outcome.stderr.count("no such file or directory")


#: Arguments, and the option that would do nothing.
IDLE_OPTIONS = [
    (["--cache", "m.gguf", "watch", "recipe.yaml", "--port", "1"], "--port"),
    (["log", "--replay", "1", "2"], "--replay"),
    (["explain", "--provenance", "--action", "weights"], "--action"),
    (["import", "models.tar", "--name", "m"], "--name"),
    (["import", "Modelfile", "--force"], "--force"),
    (["show", "m", "--raw"], "--raw"),
    (["show", "m", "--raw", "--json"], "--raw"),
    (["render", "./chat.gotmpl", "--prompt", "x", "--raw", "--json"], "--raw"),
]


@pytest.mark.parametrize(
    ("arguments", "option"), IDLE_OPTIONS, ids=lambda value: value[-1] if isinstance(value, list) else value
)
def test_options_that_would_do_nothing(place: Space, arguments: list[str], option: str) -> None:
    """Who gives one expects something of it, so it is refused."""
    place.write("Modelfile", "FROM ./m.gguf\n")
    place.write("chat.gotmpl", "{{ range .Messages }}{{ .Content }}{{ end }}")
    place.build()
    place.run("export", "m", "--output", "models.tar")

    outcome = place.run(*arguments)

    assert 2 == outcome.status
    assert outcome.stderr.startswith("error: ")
    assert option in outcome.stderr
    assert "hint: " in outcome.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "arguments", [["schema"], ["render", "./chat.gotmpl", "--prompt", "x"], ["export", "m", "--output", "-"]]
)
def test_output_that_cannot_be_written(place: Space, arguments: list[str]) -> None:
    """A full disk behind standard output is no defect of this program, whichever way is taken to it."""
    place.build()
    place.write("chat.gotmpl", "{{ range .Messages }}{{ .Content }}{{ end }}")

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelbuild", *arguments],
            cwd=place.root,
            env=place.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )

    assert (1, "error: cannot write the output: No space left on device\n") == (done.returncode, done.stderr)


def test_links_that_lead_nowhere(place: Space) -> None:
    """The link is named, instead of its own name as the one that was meant."""
    (place.root / "dangling").symlink_to("gone")
    place.recipe("model: m\nfrom: ./dangling\n")

    outcome = place.run("build")

    assert 2 == outcome.status
    assert "hint: a link of this name is there, and leads to gone" in outcome.stderr
