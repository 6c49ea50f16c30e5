"""Laws of the recipe language, on generated recipes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import jsonschema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.errors import ModelbuildError, ProblemCollector
from modelbuild.formats.modelfile import Command, format_modelfile, parse_modelfile, survives
from modelbuild.recipe.layout import format_recipe
from modelbuild.recipe.modelfile_export import model_to_modelfile
from modelbuild.recipe.nodes import to_plain
from modelbuild.recipe.printing import recipe_to_plain
from modelbuild.recipe.schema import check_node, load_schema
from modelbuild.recipe.schema_checker import Findings
from modelbuild.recipe.text import parse_recipe_text
from modelbuild.recipe.yaml_text import to_yaml
from tests.recipes import Recipes, without_positions

SETTINGS = settings(max_examples=60)

RECIPE_SCHEMA = jsonschema.Draft202012Validator(load_schema("recipe.schema.json"))
REQUEST_SCHEMA = jsonschema.Draft202012Validator(load_schema("create-request.schema.json"))
#: Text with everything that YAML and Modelfiles treat specially, but no half surrogates, which are no text.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text("ab :#-?'\"\\|>%@&*!{}[],\n\t$~=", max_size=20),
    st.sampled_from(
        ["no", "017", "1e5", "0x1F", "null", "~", "", " ", "true", ".nan", "- a", "a: b", "<<", "\n", "a\n"]
    ),
)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
NUMBERS = st.one_of(st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False, width=32))

PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": NUMBERS,
        "num_ctx": st.integers(0, 2**20),
        "use_mmap": st.booleans(),
        "stop": st.lists(TEXTS, max_size=3),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "unknown_thing": st.one_of(TEXTS, st.booleans(), st.integers(0, 9)),
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS},
        optional={"thinking": TEXTS, "images": st.just(["aGk="])},
    ),
    max_size=3,
)
REQUESTS = st.fixed_dictionaries(
    {"model": NAMES, "from": NAMES},
    optional={
        "system": st.one_of(st.none(), TEXTS),
        "license": st.one_of(st.none(), TEXTS, st.lists(TEXTS, max_size=3)),
        "parameters": st.one_of(st.none(), PARAMETERS),
        "messages": st.one_of(st.none(), MESSAGES),
        "renderer": st.one_of(st.none(), TEXTS),
        "parser": TEXTS,
        "requires": st.one_of(TEXTS, st.just("0.14.0")),
        "quantize": st.sampled_from(["Q8_0", "q4_K_M", ""]),
        "stream": st.booleans(),
        "template": st.one_of(st.none(), st.sampled_from(["{{ .Prompt }}", "a\n{{ .System }}\n", ""])),
        "info": st.fixed_dictionaries(
            {}, optional={"model_family": TEXTS, "capabilities": st.lists(TEXTS, max_size=2)}
        ),
    },
)


def _recipes(root: str) -> Recipes:
    return Recipes(Path(root))


@SETTINGS
@given(REQUESTS)
def test_every_valid_create_request_is_a_valid_recipe(request: dict[str, object]) -> None:
    """What the schema of create requests admits is a recipe, with the same texts and parameters."""
    assert REQUEST_SCHEMA.is_valid(request)
    with tempfile.TemporaryDirectory() as root:
        model = _recipes(root).model(json.dumps(request), name="create.json")

    assert (request.get("system") or "") == model.system
    assert (request.get("parameters") or None) == model.parameters


@SETTINGS
@given(st.dictionaries(NAMES, REQUESTS.map(lambda request: request | {"model": None}), min_size=1, max_size=3))
def test_printed_recipes_mean_the_same(models: dict[str, dict[str, object]]) -> None:
    """print → parse → equal, as YAML and as JSON; printing again changes nothing."""
    text = to_yaml({"models": models})
    with tempfile.TemporaryDirectory() as root:
        place = _recipes(root)
        first = place.load(text)
        plain = recipe_to_plain(first)
        as_yaml, as_json = place.load(to_yaml(plain)), place.load(json.dumps(plain), name="recipe.json")

    wanted = [without_positions(model) for model in first.models]
    assert wanted == [without_positions(model) for model in as_yaml.models]
    assert wanted == [without_positions(model) for model in as_json.models]
    assert plain == recipe_to_plain(as_yaml)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(TEXTS.filter(lambda k: k != "<<"), inner, max_size=4)
    ),
    max_leaves=12,
)


@SETTINGS
@given(st.dictionaries(TEXTS.filter(lambda key: key != "<<"), PLAIN, min_size=1, max_size=4))
def test_written_yaml_reads_back(value: dict[str, object]) -> None:
    """Whatever plain data we write as YAML is read as the same, and PyYAML sees the same keys."""
    text = to_yaml(value)

    assert value == to_plain(parse_recipe_text(text.encode(), "r"))
    assert list(value) == [key.value for key, _ in yaml.compose(text, Loader=yaml.CSafeLoader).value]


@SETTINGS
@given(REQUESTS, st.randoms(use_true_random=False))
def test_order_of_keys_and_comments_mean_nothing(request: dict[str, object], random: object) -> None:
    """The same recipe with keys in another order and comments between them resolves to the same model."""
    shuffled = list(request.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    commented = "# a comment\n" + "".join(f"{to_yaml({key: value})}# about {key}\n\n" for key, value in shuffled)
    with tempfile.TemporaryDirectory() as root:
        place = _recipes(root)
        one, two = place.model(to_yaml(request)), place.model(commented)

    assert without_positions(one) == without_positions(two)


@SETTINGS
@given(st.dictionaries(NAMES, PLAIN, min_size=1, max_size=4), st.integers(1, 7), st.booleans(), st.booleans())
def test_formatting_keeps_the_meaning_and_is_done_once(
    value: dict[str, object], indent: int, flow: bool, indentless: bool
) -> None:
    """A recipe in any indentation is laid out anew with the same meaning; a second time nothing changes."""

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, indentless and bare)

    bare = indentless
    text = yaml.dump(value, Dumper=Dumper, indent=max(2, indent), default_flow_style=None if flow else False, width=30)
    text = "#head\n" + text.replace("\n", "   \n", 1)
    try:
        before = to_plain(parse_recipe_text(text.encode(), "r"))
    except ModelbuildError:
        return
    formatted = format_recipe(text.encode(), "r")

    assert before == to_plain(parse_recipe_text(formatted.encode(), "r"))
    assert formatted == format_recipe(formatted.encode(), "r")
    assert formatted.startswith("# head\n")


COMMANDS = st.lists(
    st.one_of(
        st.builds(Command, st.sampled_from(["system", "license", "template", "renderer"]), TEXTS),
        st.builds(Command, st.just("parameter"), TEXTS, key=st.sampled_from(["stop", "seed"])),
        st.builds(Command, st.just("message"), TEXTS, key=st.sampled_from(["system", "user", "assistant"])),
    ),
    max_size=5,
)


@SETTINGS
@given(COMMANDS)
def test_modelfiles_read_back_what_they_can_say(commands: list[Command]) -> None:
    """Commands that survive alone survive together: written and read, they are the same list."""
    kept = [Command("from", "base"), *filter(survives, commands)]

    read = parse_modelfile(format_modelfile(kept).encode(), "Modelfile")

    assert [(item.name, item.key, item.argument) for item in kept] == [
        (item.name, item.key, item.argument) for item in read
    ]


@SETTINGS
@given(REQUESTS)
def test_recipes_survive_as_modelfiles(request: dict[str, object]) -> None:
    """export → import gives the same model, whatever a Modelfile itself could not say."""
    with tempfile.TemporaryDirectory() as root:
        place = _recipes(root)
        model = place.model(to_yaml(request))
        text = model_to_modelfile(model, place.root, {})
        back = place.model(text, name="Modelfile")

    assert without_positions(model) == without_positions(back)


MODEL_FIELDS = sorted(load_schema("recipe.schema.json")["$defs"]["model"]["properties"])
ANY_MODEL = st.dictionaries(
    st.one_of(st.sampled_from(MODEL_FIELDS), NAMES),
    st.one_of(
        PLAIN, PARAMETERS, MESSAGES, st.fixed_dictionaries({"file": TEXTS}), st.fixed_dictionaries({"model": NAMES})
    ),
    max_size=5,
)
ANY_RECIPE = st.one_of(
    ANY_MODEL,
    st.fixed_dictionaries(
        {"models": st.dictionaries(NAMES, ANY_MODEL, max_size=2)}, optional={"groups": PLAIN, "defaults": ANY_MODEL}
    ),
    st.fixed_dictionaries(
        {"variables": st.dictionaries(TEXTS.map(str.strip), PLAIN, max_size=2)}, optional={"include": PLAIN}
    ),
)


@settings(SETTINGS, max_examples=250)
@given(ANY_RECIPE)
def test_our_checker_agrees_with_the_jsonschema_library(recipe: dict[str, object]) -> None:
    """JSON documents that the library finds valid pass, all others fail; names of types aside, which we know better."""
    root = parse_recipe_text(json.dumps(recipe).encode(), "r")
    findings = Findings(ProblemCollector(), [], is_final=False)
    check_node(root, "recipe.schema.json", "", findings)
    ours = [
        error
        for error in findings.problems.errors
        if not error.message.startswith("unknown ") or "field" in error.message
    ]

    is_valid = RECIPE_SCHEMA.is_valid(recipe)

    assert is_valid == (not ours), [str(error) for error in findings.problems.errors]
