"""The commands for people who write recipes: validate, print, fmt, init, schema, import, export, and their options."""

from __future__ import annotations

import io
import json
import shutil

import jsonschema
import pytest

from tests.space import ROOT, Space

MATRIX = """\
variables:
  owner: {default: acme, env: OWNER}
defaults:
  license: {file: LICENSE}
models:
  far:
    from: gpt-oss:120b
    remote_host: https://models.example.com
    model: ${owner}/far:${size}
    matrix: {size: [small, large]}
    system: |
      You are ${size}.
      Be kind.
groups: {all: [far]}
"""


@pytest.fixture
def place(space: Space) -> Space:
    """A recipe of remote models, which need no weights."""
    space.write("LICENSE", "MIT")
    space.recipe(MATRIX)
    return space


# -- validate ----------------------------------------------------------------------------------------------------


def test_validate_shows_all_errors_with_hints(space: Space) -> None:
    """Every mistake of a recipe on a line of its own, with file:line:column, and what to do about it."""
    space.recipe("model: m\nfrom: x\nsytem: hi\nparameters: {temperature: hot}\n")

    outcome = space.run("validate")

    assert 2 == outcome.status
    assert (
        "error: recipe.yaml:3:1: unknown field 'sytem' in a recipe of one model\n"
        "  hint: did you mean 'system' or 'stream'?\n"
        'recipe.yaml:4:27: parameters.temperature: a number, or null to drop it expected, "hot" found\n'
    ) == outcome.stderr
    assert "" == outcome.stdout


def test_validate_reports_json(space: Space) -> None:
    """`--format json` has a version, a verdict, and findings with stable codes and places."""
    space.recipe("model: m\nfrom: x\nsytem: hi\n")
    bad = space.run("validate", "--format", "json")
    space.recipe("model: m\nfrom: x\nparameters: {colour: red}\n")
    good = space.run("validate", "--format", "json")

    assert [2, 0] == [bad.status, good.status]
    report = json.loads(bad.stdout)
    assert (1, False, []) == (report["version"], report["valid"], report["models"])
    assert [("error", "UNKNOWN", "recipe.yaml", 3, 1)] == [
        (item["severity"], item["code"], item["path"], item["line"], item["column"]) for item in report["findings"]
    ]
    report = json.loads(good.stdout)
    assert (True, ["warning"]) == (report["valid"], [item["severity"] for item in report["findings"]])
    assert [{"id": "", "name": "m:latest", "path": "recipe.yaml", "line": 1}] == report["models"]


def test_validate_reports_sarif(space: Space) -> None:
    """`--format sarif` is what code hosts read: rules, levels, regions."""
    space.recipe("model: m\nfrom: x\nsytem: hi\n")

    log = json.loads(space.run("validate", "--format", "sarif").stdout)

    assert "2.1.0" == log["version"]
    (run,) = log["runs"]
    assert ("modelbuild", [{"id": "UNKNOWN"}]) == (run["tool"]["driver"]["name"], run["tool"]["driver"]["rules"])
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert ("UNKNOWN", "error") == (result["ruleId"], result["level"])
    assert {"artifactLocation": {"uri": "recipe.yaml"}, "region": {"startLine": 3, "startColumn": 1}} == place


def test_validate_survives_fifty_megabytes_of_garbage(space: Space) -> None:
    """A file that cannot be a recipe is refused by its size, before it is read."""
    path = space.root / "recipe.yaml"
    with path.open("wb") as file:
        file.truncate(50 << 20)

    outcome = space.run("validate")

    assert 2 == outcome.status
    assert "recipe.yaml:1:1: 52,428,800 bytes, at most 1,048,576 allowed" in outcome.stderr


# -- variables and overrides -------------------------------------------------------------------------------------


def test_variables_come_from_the_command_line_and_the_environment(place: Space) -> None:
    """--var beats the environment, which beats the default."""
    outcomes = [
        place.run("validate"),
        place.run("validate", env={"OWNER": "team"}),
        place.run("validate", "--var", "owner=me", env={"OWNER": "team"}),
        place.run("validate", "--set", "far.model=one/${size}"),
    ]

    owners = [outcome.stdout.split("models: ")[1].split(":")[0] for outcome in outcomes]
    assert ["acme/far", "team/far", "me/far", "one/small"] == owners


def test_no_op_check_knows_options_and_environment(place: Space) -> None:
    """A build is up to date only for the options and the environment that it was made with."""
    place.build()
    again, variable, environment, back = (
        place.run("build"),
        place.run("build", "--var", "owner=me"),
        place.run("build", env={"OWNER": "team"}),
        place.run("build"),
    )

    assert [0, 0, 0, 0] == [item.status for item in (again, variable, environment, back)], environment.stderr
    assert "nothing to do" in again.stderr
    assert "me/far:large" in variable.stdout
    assert "team/far:large" in environment.stdout
    assert "nothing to do" in back.stderr
    assert "acme/far:large" in back.stdout


def test_groups_keys_and_variants_select_models(place: Space) -> None:
    """build takes a group, the key of a matrix, one variant, or a model's name."""
    wanted = [["all"], ["far"], ["far:small"], ["acme/far:large"]]
    built = [place.run("plan", "recipe.yaml", *names).stdout.count("publish") for names in wanted]

    assert [2, 2, 1, 1] == built


def test_an_edited_included_file_is_noticed(space: Space) -> None:
    """Every file that a recipe reads is an input of the no-op check."""
    space.recipe("include: more.yaml\nmodels: {m: {from: x, remote_host: h}}\n")
    space.write("more.yaml", "defaults: {system: one}\n")
    space.build()
    space.write("more.yaml", "defaults: {system: two!}\n")

    assert "nothing to do" not in space.build().stderr
    assert "two!" == space.run("show", "m", "--system").stdout.rstrip("\n")


# -- print -------------------------------------------------------------------------------------------------------


def test_printed_recipe_gives_identical_action_keys(place: Space) -> None:
    """Once a recipe is built, the printed one has nothing to do."""
    place.build()
    for form in ("yaml", "json"):
        place.write(f"printed.{form}", place.run("print", "--format", form).stdout)
        done = place.run("build", f"printed.{form}")

        assert 0 == done.status, done.stderr
        assert "nothing to do" in done.stderr


def test_origins_name_files_and_variables(place: Space) -> None:
    """print --origins shows for every value its place, and what it was made with."""
    lines = place.run("print", "--origins", "--var", "owner=me").stdout.splitlines()
    records = json.loads(place.run("print", "--origins", "--format", "json").stdout)

    assert "far:small.model = me/far:small  recipe.yaml:9:12  (owner from --var owner, size from the matrix at recipe.yaml:10:21)" in lines  # fmt: skip  # noqa: E501
    assert "far:small.license.file = LICENSE  recipe.yaml:4:19" in lines
    assert len(lines) == len(records)
    assert {"path", "value", "file", "line", "column", "via"} == set(records[0])


# -- fmt ---------------------------------------------------------------------------------------------------------


def test_fmt_checks_and_formats(space: Space) -> None:
    """--check only says so; without it the file is written, and then it is well."""
    space.recipe("model:   m\n#why\nparameters:\n      seed: 1   \n\n\n\nfrom: x")

    check, fmt, again = space.run("fmt", "--check"), space.run("fmt"), space.run("fmt", "--check")

    assert [1, 0, 0] == [check.status, fmt.status, again.status]
    assert "recipe.yaml: is laid out otherwise\n" == check.stdout
    assert "model:   m\n# why\nparameters:\n  seed: 1\n\nfrom: x\n" == (space.root / "recipe.yaml").read_text()


def test_fmt_names_what_is_near(space: Space) -> None:
    """A mistyped file is told which one may be meant, as for every command that reads a recipe."""
    space.recipe("model: m\nfrom: x\n")

    assert "hint: did you mean recipe.yaml?" in space.run("fmt", "recpie.yaml").stderr


def test_large_files_that_are_no_recipes(space: Space) -> None:
    """Weights in place of a recipe: the hint is the command that writes one."""
    space.write("model.safetensors", bytes(2 << 20))

    assert "hint: is this a recipe? 'modelbuild init DIRECTORY'" in space.run("build", "model.safetensors").stderr


def test_examples_are_laid_out(space: Space) -> None:
    """Our own examples have the layout that we give."""
    recipes = [path for path in sorted((ROOT / "examples").rglob("*.y*ml")) if "TinyDocs" not in path.parts]

    outcome = space.run("fmt", "--check", "--diff", *recipes)

    assert 0 == outcome.status, outcome.stdout


# -- schema, init ------------------------------------------------------------------------------------------------


def test_schemas_are_printed(space: Space) -> None:
    """`schema NAME` prints a JSON Schema, recipe by default; a wrong name lists the right ones."""
    recipe, request = space.run("schema"), space.run("schema", "create-request")
    wrong = space.run("schema", "recipes")

    for text in (recipe.stdout, request.stdout):
        jsonschema.Draft202012Validator.check_schema(json.loads(text))
    assert 2 == wrong.status
    assert "create-request, events, recipe" in wrong.stderr or "recipe" in wrong.stderr


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Modelfile", "model: base-on-x\nfrom: x\nsystem: hi\n"),
        ("model.gguf", "model: model\nfrom: ./model.gguf\n"),
        ("checkpoint", "model: checkpoint\nfrom: ./checkpoint\nquantize: Q4_K_M\n"),
        ("llama3.2:1b", "model: llama3.2-custom\nfrom: llama3.2:1b\n"),
    ],
)
def test_init_writes_a_recipe_that_is_valid(space: Space, source: str, expected: str) -> None:
    """From a Modelfile, a GGUF, a checkpoint or a stored model: a short recipe with the schema line."""
    space.write("Modelfile", '# modelbuild: {"model": "base-on-x"}\nFROM x\nSYSTEM hi\n')
    space.write("model.gguf", "GGUF")
    space.write("checkpoint/config.json", "{}")

    made, again = space.run("init", source), space.run("init", source)

    assert [0, 2] == [made.status, again.status], made.stderr
    text = (space.root / "recipe.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=")
    assert expected in text
    assert 0 == space.run("validate").status
    assert 0 == space.run("fmt", "--check").status


@pytest.mark.parametrize(
    ("source", "hint"), [("helpre", "did you mean helper:latest?"), ("chekpoint", "did you mean ./checkpoint?")]
)
def test_init_warns_of_what_is_not_there(space: Space, source: str, hint: str) -> None:
    """A name that no model and no path has may be of a model to come: the recipe is written, the doubt is said."""
    space.write("checkpoint/config.json", "{}")
    space.recipe("model: helper\nfrom: 'big:1'\nremote_host: https://models.example.com\n")
    space.build()

    doubtful = space.run("init", source, "--output", "new.yaml")

    assert 0 == doubtful.status
    assert f"from: {source}\n" in (space.root / "new.yaml").read_text()
    assert f"warning: no model '{source}:latest' in the store {space.store}, and no such path" in doubtful.stderr
    assert f"  hint: {hint}\n" in doubtful.stderr
    assert "" == space.run("init", "helper", "--output", "known.yaml").stderr


def test_init_says_what_a_directory_lacks(space: Space) -> None:
    """It may be filled later; one file of a checkpoint is no model, whatever comes."""
    (space.root / "empty").mkdir()
    space.write("checkpoint/model.safetensors", "x")

    lacking, part = space.run("init", "empty"), space.run("init", "checkpoint/model.safetensors", "--output", "b.yaml")

    assert [0, 1] == [lacking.status, part.status]
    assert "warning: empty: no config.json in the directory" in lacking.stderr
    assert "name the one that this file stands in" in part.stderr
    assert not (space.root / "b.yaml").exists()


@pytest.mark.parametrize(
    ("source", "written"),
    [("checkpoint", "./checkpoint"), (".", "."), ("../beside", "../beside"), ("./a/../b", "./a/../b")],
)
def test_init_writes_paths_as_people_do(space: Space, source: str, written: str) -> None:
    """No path begins with ./. or ./.."""
    for name in ("checkpoint", "../beside", "a", "b"):
        (space.root / name).mkdir(exist_ok=True)

    assert f"from: {written}\n" in space.run("init", source, "--output", "-").stdout


def test_init_asks_where_somebody_can_answer(space: Space) -> None:
    """Without a source and without a terminal there is nobody to ask; a wrong path is no name."""
    silent, wrong = space.spawn("init"), space.run("init", "./modle.gguf")

    assert [2, 1] == [silent.status, wrong.status]
    assert "modelbuild init SOURCE" in silent.stderr
    assert "modle.gguf: no such file" in wrong.stderr


def test_init_asks_on_a_terminal(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, init asks for what the model is made from, and offers what fits."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    space.write("tiny/config.json", "{}")
    monkeypatch.setattr("sys.stdin", Terminal("./tiny\n\nQ8_0\nBe brief.\n"))

    outcome = space.run("init")

    assert 0 == outcome.status, outcome.stderr
    text = (space.root / "recipe.yaml").read_text()
    assert "model: tiny\nfrom: ./tiny\nquantize: Q8_0\nsystem: Be brief.\n" in text


# -- Modelfiles --------------------------------------------------------------------------------------------------


def test_modelfile_builds(space: Space) -> None:
    """`build Modelfile` makes the model; names of hosts and weights aside, it is a recipe like any other."""
    space.write("far.modelfile", '# modelbuild: {"remote_host": "h"}\nFROM x\nSYSTEM hello\nPARAMETER seed 7\n')

    outcome = space.run("build", "far.modelfile")

    assert 0 == outcome.status, outcome.stderr
    assert "hello" == space.run("show", "far", "--system").stdout.rstrip("\n")


def test_import_and_export_print_modelfiles_and_recipes(place: Space) -> None:
    """export --to modelfile and import are the way there and back."""
    exported = place.run("export", "recipe.yaml", "far:small", "--to", "modelfile", "-o", "Modelfile")
    printed = place.run("export", "recipe.yaml", "far:small", "--to", "modelfile", "-o", "-")
    recipe = place.run("import", "Modelfile")
    request = place.run("import", "Modelfile", "--to", "request", "--name", "n")

    assert [0, 0, 0] == [exported.status, recipe.status, request.status], exported.stderr + recipe.stderr
    assert (place.root / "Modelfile").read_text() == printed.stdout
    assert not (place.root / "-").exists()
    assert "model: acme/far:small\n" in recipe.stdout
    assert {
        "model": "n",
        "from": "gpt-oss:120b",
        "license": ["MIT"],
        "system": "You are small.\nBe kind.\n",
    } == json.loads(request.stdout)


def test_export_asks_which_model(place: Space) -> None:
    """A recipe of several models needs a name; a wrong one lists what there is."""
    several, wrong = (
        place.run("export", "recipe.yaml", "--to", "modelfile"),
        place.run("export", "recipe.yaml", "near", "--to", "modelfile"),
    )

    assert [2, 2] == [several.status, wrong.status]
    assert "name one: far:small, far:large" in several.stderr
    assert "no model 'near'" in wrong.stderr


def test_no_traceback_whatever_the_recipe(space: Space) -> None:
    """Each bad recipe of the corpus ends the real command with status 1 or 2, a message, and nothing in the store."""
    corpus = sorted((ROOT / "tests" / "data" / "bad_recipes").iterdir())
    for number, case in enumerate(corpus):
        place = space.root / f"case{number}"
        shutil.copytree(case, place)
        recipe = next(path for path in place.iterdir() if path.name in ("recipe.yaml", "recipe.json", "Modelfile"))

        outcome = space.run("build", recipe, env={"MODELBUILD_ALLOW_ROOT": ""})

        assert outcome.status in (1, 2), case.name
        assert outcome.stderr.startswith("error: "), case.name
        assert "internal error" not in outcome.stderr, case.name
    assert set() == space.files() if space.store.exists() else True
