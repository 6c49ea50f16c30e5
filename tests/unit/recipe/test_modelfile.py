"""Modelfiles as recipes and as create requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelbuild.digest import Digest
from modelbuild.errors import InputError
from modelbuild.formats.modelfile import ModelfileError
from modelbuild.recipe.content_type import content_type
from modelbuild.recipe.modelfile_export import model_to_modelfile
from modelbuild.recipe.modelfile_request import modelfile_to_request
from modelbuild.recipe.modelfile_values import read_float32
from modelbuild.recipe.resolved import FromName, FromPath
from tests.recipes import Recipes, without_positions

FULL = """\
# full
FROM ./m.gguf
ADAPTER ./lora.gguf
DRAFT ./d.gguf
TEMPLATE \"\"\"{{ .System }}{{ .Prompt }}\"\"\"
SYSTEM You are a test.
PARAMETER temperature 0.7
PARAMETER num_ctx +4096
PARAMETER use_mmap F
PARAMETER stop x
PARAMETER stop "y "
MESSAGE user q
MESSAGE assistant a: b
LICENSE MIT
LICENSE Apache
RENDERER rr
PARSER pp
REQUIRES v0.15.0
"""


@pytest.fixture
def place(recipes: Recipes) -> Recipes:
    """A directory with the files that the full Modelfile names."""
    for name in ("m.gguf", "lora.gguf", "d.gguf"):
        recipes.write(name, name)
    return recipes


def test_a_modelfile_is_a_recipe(place: Recipes) -> None:
    """Every command reaches the model, typed as Ollama's command line types it."""
    model = place.model(FULL, name="coder.modelfile")

    assert "coder:latest" == str(model.name)
    assert isinstance(model.base, FromPath)
    assert ["m.gguf", "lora.gguf", "d.gguf"] == [
        model.base.path.name,
        *(entry.name for entry in (*model.adapters, *model.draft_files)),
    ]
    assert {"temperature": 0.7, "num_ctx": 4096, "use_mmap": False, "stop": ["x", "y "]} == model.parameters
    assert ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a: b"}) == model.messages
    assert (("MIT", "Apache"), "rr", "pp", "0.15.0") == (model.licenses, model.renderer, model.parser, model.requires)
    assert (6, 8) == (model.positions["system"].line, model.positions["system"].column)


def test_the_request_is_that_of_ollama(place: Recipes) -> None:
    """Files by name and digest, parameters sorted, everything that is not set left out."""
    request = modelfile_to_request(FULL.encode(), place.root / "Modelfile", lambda path: Digest(path.name), "m")

    assert {
        "model": "m",
        "files": {"m.gguf": "m.gguf"},
        "adapters": {"lora.gguf": "lora.gguf"},
        "draft_files": {"d.gguf": "d.gguf"},
        "template": "{{ .System }}{{ .Prompt }}",
        "license": ["MIT", "Apache"],
        "system": "You are a test.",
        "parameters": {"num_ctx": 4096, "stop": ["x", "y "], "temperature": 0.7, "use_mmap": False},
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a: b"}],
        "renderer": "rr",
        "parser": "pp",
        "requires": "0.15.0",
    } == json.loads(request.to_json())


def test_names_that_are_no_files_are_models(recipes: Recipes) -> None:
    """FROM is a path where there is a file, also without ./ in front, and a model's name elsewhere."""
    recipes.write("here", "x")

    file, model = recipes.model("FROM here\n", name="a.modelfile"), recipes.model("FROM there\n", name="b.modelfile")

    assert isinstance(file.base, FromPath)
    assert isinstance(model.base, FromName)


def test_several_files_keep_their_names(recipes: Recipes) -> None:
    """Several FROM make one set of files; in a request their names start at the deepest common directory."""
    recipes.write("a/m.gguf", "m")
    recipes.write("b/p.gguf", "p")
    text = "FROM ./a/m.gguf\nFROM b/p.gguf\n"

    assert ["m.gguf", "p.gguf"] == [entry.name for entry in recipes.model(text, name="Modelfile").files]
    request = modelfile_to_request(text.encode(), recipes.root / "Modelfile", lambda path: Digest("d"))
    assert {"a/m.gguf": "d", "b/p.gguf": "d"} == request.body["files"]


def _checkpoint(recipes: Recipes, **more: str | bytes) -> None:
    recipes.write("ck/model-1.safetensors", "w")
    recipes.write("ck/sub/model.safetensors", "w")
    recipes.write("ck/consolidated.safetensors", "w")
    recipes.write("ck/config.json", "{}")
    recipes.write("ck/sub/inner.json", "{}")
    recipes.write("ck/notes.txt", "n")
    recipes.write("ck/chat_template.jinja", "t")
    recipes.write("ck/tokenizer.model", b"\0\1\2")
    for name, content in more.items():
        recipes.write(f"ck/{name.replace('__', '.')}", content)


def _names(recipes: Recipes) -> list[str]:
    request = modelfile_to_request(b"FROM ./ck\n", recipes.root / "Modelfile", lambda path: Digest("d"))
    files = request.body["files"]
    assert isinstance(files, dict)
    return list(files)


def test_directories_give_what_makes_a_model(recipes: Recipes) -> None:
    """Weights by the first pattern that finds some, JSON one level deep, the template, the tokenizer; no other file."""
    _checkpoint(recipes)

    assert [
        "chat_template.jinja",
        "config.json",
        "model-1.safetensors",
        "sub/inner.json",
        "sub/model.safetensors",
        "tokenizer.model",
    ] == _names(recipes)


def test_directories_without_weights_are_refused(recipes: Recipes) -> None:
    """A directory that holds none of the known weights, or only pointers to them, is no model."""
    recipes.write("ck/config.json", "{}")
    recipes.write("ck/m.gguf", "version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ModelfileError, match="no Modelfile or safetensors files found"):
        _names(recipes)


def test_json_that_is_no_text_is_refused(recipes: Recipes) -> None:
    """A binary file under a JSON name stops the import."""
    _checkpoint(recipes, bad__json=b"PK\x03\x04zip")

    with pytest.raises(ModelfileError, match="invalid content type: expected application/zip for"):
        _names(recipes)


def test_links_out_of_a_directory_are_refused(recipes: Recipes) -> None:
    """A link to a file elsewhere is insecure, one to a hub cache comes with advice."""
    _checkpoint(recipes)
    recipes.write(".cache/blobs/x.json", "{}")
    (recipes.root / "ck" / "link.json").symlink_to("../.cache/blobs/x.json")

    with pytest.raises(ModelfileError, match=r"insecure path: \.\./\.cache/blobs/x\.json\n\nUse --local-dir"):
        _names(recipes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PARAMETER num_ctx 4096.0", "invalid int value [4096.0]"),
        ("PARAMETER num_ctx 0x10", "invalid int value [0x10]"),
        ("PARAMETER num_ctx 9223372036854775808", "invalid int value [9223372036854775808]"),
        ("PARAMETER temperature warm", "invalid float value [warm]"),
        ("PARAMETER temperature 1e39", "invalid float value [1e39]"),
        ("PARAMETER temperature nan", "invalid float value [nan]"),
        ("PARAMETER use_mmap yes", "invalid bool value [yes]"),
        ("PARAMETER STOP x", "unknown parameter 'STOP'"),
        ("PARAMETER num_gqa 1", "unknown parameter 'num_gqa'"),
        ("REQUIRES x.y", "requires must be a valid semver (e.g. 0.14.0)"),
        (
            "ADAPTER ~no-such-user-here/x",
            "failed to find user 'no-such-user-here': user: unknown user no-such-user-here",
        ),
    ],
)
def test_values_of_the_wrong_type_are_refused(recipes: Recipes, text: str, message: str) -> None:
    """Types and texts are those of Ollama's command line."""
    with pytest.raises(ModelfileError) as caught:
        modelfile_to_request(f"FROM a\n{text}\n".encode(), recipes.root / "Modelfile", lambda path: Digest("d"))

    assert message == caught.value.message
    assert 2 == caught.value.line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".95", 0.95),
        ("1e-2", 0.01),
        ("0.1", 0.1),
        ("16777217", 16777216.0),
        ("0x1p-2", 0.25),
        ("1_0", 10.0),
        ("0x_1p0", 1.0),
        ("3.4028235e38", 3.4028235e38),
        ("-0", -0.0),
    ],
)
def test_floats_have_the_digits_of_float32(text: str, value: float) -> None:
    """A number is written with the fewest digits that mean the same 32-bit float."""
    assert repr(value) == repr(read_float32(text))


def test_deprecated_parameters_are_dropped_with_a_warning(recipes: Recipes) -> None:
    """Parameters of old Ollama versions are left out."""
    request = modelfile_to_request(
        b"FROM a\nPARAMETER mirostat 1\nPARAMETER seed 3\n", recipes.root / "Modelfile", lambda path: Digest("d")
    )

    assert ({"seed": 3}, ("parameter mirostat is deprecated",)) == (request.body["parameters"], request.warnings)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("coder.modelfile", "coder"),
        ("Modelfile.tiny", "tiny"),
        ("My Model/Modelfile", "My-Model"),
        ("x/Modelfile", "x"),
    ],
)
def test_models_are_named_by_file_or_directory(recipes: Recipes, name: str, model: str) -> None:
    """A Modelfile has no name for its model, so its own name or its directory's serves; --set model= gives another."""
    assert model == recipes.model("FROM a\n", name=name).name.model
    assert "other" == recipes.model("FROM a\n", name=name, overrides=("model=other",)).name.model


def test_everything_else_goes_into_a_comment(place: Recipes) -> None:
    """Export writes what Modelfiles cannot say into one comment line, and import takes it from there."""
    place.write("imatrix.gguf", "")
    text = """\
model: acme/m:q4
from: ./m.gguf
quantize: Q4_K_M
imatrix: ./imatrix.gguf
system: null
requires: newest
parameters: {seed: 1, temperature: 0.2, odd: [1], top_k: null}
messages: [{role: tool, content: x}]
license: "ends in \\"\\nand more"
info: {base_name: b}
"""
    model = place.model(text)
    modelfile = model_to_modelfile(model, place.root, {})

    assert modelfile.startswith('# modelbuild: {"')
    assert "FROM ./m.gguf\n" in modelfile
    assert "PARAMETER seed 1\n" in modelfile
    assert without_positions(model) == without_positions(place.model(modelfile, name="Modelfile"))


def test_every_command_is_used_where_it_can(place: Recipes) -> None:
    """A recipe that says nothing special becomes an ordinary Modelfile, with only the name in the comment."""
    model = place.model(FULL, name="coder.modelfile")

    lines = model_to_modelfile(model, place.root, {}).splitlines()

    assert '# modelbuild: {"model": "coder:latest"}' == lines[0]
    words = {line.split()[0] for line in lines[1:]}
    wanted = "FROM ADAPTER DRAFT TEMPLATE SYSTEM PARAMETER MESSAGE LICENSE RENDERER PARSER REQUIRES"
    assert set(wanted.split()) == words


def test_paths_of_an_export_start_where_it_stands(place: Recipes, tmp_path: Path) -> None:
    """A Modelfile in another directory names files absolutely."""
    model = place.model("model: m\nfrom: ./m.gguf\n")

    assert f"FROM {place.root}/m.gguf" in model_to_modelfile(model, tmp_path / "elsewhere", {})


def test_exports_say_what_they_cannot(place: Recipes) -> None:
    """A file that is given by digest has no path; a model of the same recipe is named as it is stored."""
    digest = "sha256:" + "0" * 64
    with pytest.raises(InputError, match="given by digest"):
        model_to_modelfile(place.model(f"model: m\nfiles: {{a.gguf: '{digest}'}}\n"), place.root, {})

    models = place.models("models: {a: {from: x}, b: {from: {model: a}}}\n")
    assert "FROM a:latest\n" in model_to_modelfile(models["b"], place.root, {"a": models["a"].name})


def test_named_files_survive_an_export(place: Recipes) -> None:
    """Files under other names than their own stand in the comment line, too."""
    model = place.model("model: m\nfiles: {other.gguf: ./m.gguf}\n")
    text = model_to_modelfile(model, place.root, {})

    assert without_positions(model) == without_positions(place.model(text, name="Modelfile"))


#: What Ollama's own code says (tests/data/go_requests/README.md).
RECORDED = Path(__file__).parents[2] / "data" / "go_requests"


@pytest.mark.parametrize("case", json.loads((RECORDED / "modelfiles.json").read_text("utf-8")))
def test_modelfiles_are_read_as_by_ollama(case: dict[str, object], tmp_path: Path) -> None:
    """A Modelfile gives the request that Ollama's command line sends, or the text of the first fault in it."""
    data = str(case["modelfile"]).encode("latin-1")

    assert case.get("request", case.get("error")) == request_or_error(data, tmp_path)


def request_or_error(data: bytes, place: Path) -> object:
    """What we make of a Modelfile in a directory, in the form of the expectations."""
    try:
        return json.loads(modelfile_to_request(data, place / "Modelfile", digest_of_nothing).to_json())
    except InputError as error:
        return error.message.replace(str(place), "<dir>")


def digest_of_nothing(path: Path) -> Digest:
    """The directory is empty, so there is nothing to hash."""
    raise AssertionError(path)


@pytest.mark.parametrize("case", json.loads((RECORDED / "content_types.json").read_text("utf-8")))
def test_content_is_recognised_as_by_ollama(case: dict[str, str]) -> None:
    """The first bytes decide; so does a mark at byte 34."""
    assert case["type"] == content_type(case["head"].encode("latin-1"))
