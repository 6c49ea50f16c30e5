"""Variables, defaults, extends, include, matrix, groups, overrides and null: what each gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import UsageError
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.resolve import load_recipe
from tests.recipes import Recipes

# -- variables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${owner}", "Acme_Corp"),
        ("${ owner }", "Acme_Corp"),
        ("a${owner}b", "aAcme_Corpb"),
        ("${owner | lower}", "acme_corp"),
        ("${owner|upper}", "ACME_CORP"),
        ("${owner | lower | replace('_', '-')}", "acme-corp"),
        ("${none | default('x')}", "x"),
        ("${owner | default('x')}", "Acme_Corp"),
        ("${owner | required('say who')}", "Acme_Corp"),
        ('${owner | replace("\\"", "")}', "Acme_Corp"),
        ("$${owner}", "${owner}"),
        ("$$", "$$"),
        ("$owner {owner}", "$owner {owner}"),
        ("${size}x${size}", "8x8"),
        ("${flag}", "true"),
    ],
)
def test_expressions_in_text(recipes: Recipes, expression: str, value: str) -> None:
    """Every form of an expression, and what only looks like one, in a text field."""
    recipes.write("system.txt", "")
    variables = "variables: {owner: Acme_Corp, none: {description: nothing}, size: 8, flag: true}\n"

    model = recipes.model(f"{variables}model: m\nfrom: x\nsystem: {expression}\n")

    assert value == model.system


def test_values_keep_their_types(recipes: Recipes) -> None:
    """A scalar that is one expression has the type of its variable; text is typed by the field that takes it."""
    text = """\
variables: {ctx: 4096, temp: {default: 0.5}, map: false, text: "7"}
model: m
from: x
parameters: {num_ctx: "${ctx}", temperature: "${temp}", use_mmap: "${map}", top_k: "${text}", seed: "4${text}"}
"""

    assert {"num_ctx": 4096, "temperature": 0.5, "use_mmap": False, "top_k": 7, "seed": 47} == recipes.model(
        text
    ).parameters


def test_later_sources_of_variables_win(recipes: Recipes) -> None:
    """Recipe default, included default, environment, command line: each beats those before it."""
    text = "variables: {a: {default: recipe, env: A_VALUE}}\ninclude: other.yaml\nmodel: m\nfrom: x\nsystem: ${a}\n"
    plain = text.replace("include: other.yaml\n", "")
    recipes.write("other.yaml", "variables: {a: included}\n")

    found = [
        recipes.model(plain).system,
        recipes.model(text).system,
        recipes.model(text, environment={"A_VALUE": "environment"}).system,
        recipes.model(text, environment={"A_VALUE": "environment"}, variables={"a": "command line"}).system,
    ]

    assert ["recipe", "included", "environment", "command line"] == found


def test_environment_is_read_only_where_declared(recipes: Recipes) -> None:
    """A variable without `env` does not come from the environment, and the recipe tells what it asked for."""
    text = "variables: {HOME: here, b: {default: '', env: B}}\nmodel: m\nfrom: x\nsystem: ${HOME}${b}\n"

    recipe = recipes.load(text, environment={"HOME": "/root", "B": "set"})

    assert "hereset" == recipe.models[0].system
    assert (("B", "set"),) == recipe.environment


def test_defaults_of_variables_may_use_variables(recipes: Recipes) -> None:
    """Variables may be made of each other in any order."""
    text = "variables: {c: '${b}!', b: '${a | upper}', a: x}\nmodel: m\nfrom: x\nsystem: ${c}\n"

    assert "X!" == recipes.model(text).system
    assert "YY!" == recipes.model(text, variables={"a": "yy"}).system


def test_create_requests_keep_their_dollars(recipes: Recipes) -> None:
    """Without variables nothing is interpolated: a prompt about shell scripts is what it is."""
    request = '{"model": "m", "from": "x", "system": "Explain ${HOME} and ${x | y}."}'

    assert "Explain ${HOME} and ${x | y}." == recipes.model(request, name="create.json").system
    assert [] == recipes.warnings(request, name="create.json")
    assert ["3:9 '${' is kept as it is, because the recipe declares no variables"] == recipes.warnings(
        "model: m\nfrom: x\nsystem: ${HOME}\n"
    )


def test_texts_in_files_are_never_interpolated(recipes: Recipes) -> None:
    """A file is taken as it is, byte for byte."""
    recipes.write("system.txt", "${owner}\r\n\u00a0")

    model = recipes.model("variables: {owner: a}\nmodel: '${owner}'\nfrom: x\nsystem: {file: system.txt}\n")

    assert "${owner}\r\n\u00a0" == model.system


def test_unknown_var_is_a_usage_error(recipes: Recipes) -> None:
    """--var for something that the recipe does not declare names what it does declare."""
    with pytest.raises(UsageError, match="declares no such variable") as caught:
        recipes.load("variables: {owner: a}\nmodel: ${owner}\nfrom: x\n", variables={"ownr": "b"})
    assert "declared are owner" == caught.value.hint
    with pytest.raises(UsageError, match="declares no such variable") as caught:
        recipes.load("model: m\nfrom: x\n", variables={"owner": "b"})
    assert "declare it: variables: {owner: {}}" == caught.value.hint


# -- defaults, extends, null -------------------------------------------------------------------------------------


def test_own_fields_beat_extended_ones_beat_defaults(recipes: Recipes) -> None:
    """The order of inheritance: defaults, what is extended (later wins), the model itself; mappings key by key."""
    models = recipes.models("""\
defaults: {system: default, parser: default, renderer: default, parameters: {seed: 1, top_k: 1, num_ctx: 1}}
models:
  .one: {system: one, parser: one, parameters: {seed: 2, top_k: 2}}
  .two: {parser: two}
  m:
    extends: [.one, .two]
    from: x
    parameters: {seed: 3}
""")

    assert ["m"] == list(models)
    model = models["m"]
    assert ("one", "two", "default") == (model.system, model.parser, model.renderer)
    assert {"seed": 3, "top_k": 2, "num_ctx": 1} == model.parameters


def test_names_are_not_inherited(recipes: Recipes) -> None:
    """A model that extends another one is named by its own key."""
    models = recipes.models("models:\n  a: {model: name/a, from: x}\n  b: {extends: a}\n")

    assert {"a": "name/a:latest", "b": "b:latest"} == {key: str(model.name) for key, model in models.items()}


def test_from_and_files_replace_each_other(recipes: Recipes) -> None:
    """`files` of a model drop an inherited `from`, and the other way round."""
    recipes.write("a.gguf", "")
    models = recipes.models("models:\n  a: {from: x}\n  b: {extends: a, files: a.gguf}\n  c: {extends: b, from: y}\n")

    assert (None, ()) == (models["b"].base, models["c"].files)
    assert ["a.gguf"] == [entry.name for entry in models["b"].files]


def test_null_drops_what_was_inherited(recipes: Recipes) -> None:
    """null removes a field or a parameter, from defaults and from the base model alike."""
    (model,) = recipes.load("""\
defaults: {system: s, quantize: Q8_0, license: MIT, parameters: {seed: 1, top_k: 2}, info: {base_name: b}}
models:
  m: {from: x, system: null, quantize: null, template: null, parameters: {seed: null}, info: {base_name: null}}
""").models

    assert ("", "", ("MIT",)) == (model.system, model.quantize, model.licenses)
    assert ({"top_k": 2}, None) == (model.parameters, model.info)
    assert {"system", "template", "parameters.seed"} == model.cleared


def test_every_clearable_field_takes_null(recipes: Recipes) -> None:
    """null in each field that a base hands down leaves the field empty and clears it."""
    from modelbuild.recipe.inheritance import CLEARABLE

    model = recipes.model("model: m\nfrom: x\n" + "".join(f"{field}: null\n" for field in CLEARABLE))

    assert set(CLEARABLE) == model.cleared
    assert ("", "", (), None, (), (), (), "", "", "") == (
        model.template,
        model.system,
        model.licenses,
        model.parameters,
        model.messages,
        model.adapters,
        model.draft_files,
        model.renderer,
        model.parser,
        model.requires,
    )


def test_null_in_a_create_request_says_nothing(recipes: Recipes) -> None:
    """In JSON, as in Ollama's API, null leaves a field as the base has it; a null parameter is stored."""
    model = recipes.model('{"model": "m", "from": "x", "template": null, "parameters": {"seed": null}}', name="r.json")

    assert (frozenset(), {"seed": None}) == (model.cleared, model.parameters)


def test_dotted_keys_are_never_built(recipes: Recipes) -> None:
    """A key with a dot in front need not be complete and is no model."""
    assert ["m"] == list(recipes.models("models:\n  .part: {system: s}\n  m: {extends: .part, from: x}\n"))


# -- include -----------------------------------------------------------------------------------------------------


def test_included_files_bring_everything_with_their_own_paths(recipes: Recipes) -> None:
    """Variables, defaults, models and groups come in; relative paths start beside the file that names them."""
    recipes.write("team/LICENSE", "MIT")
    recipes.write("team/x.gguf", "")
    recipes.write(
        "team/all.yaml",
        "variables: {owner: acme}\ndefaults: {license: {file: LICENSE}}\n"
        "models: {base: {from: ./x.gguf}}\ngroups: {bases: base}\n",
    )

    recipe = recipes.load(
        "include: [team/all.yaml]\nmodels: {m: {from: {model: base}, model: '${owner}/m'}}\ngroups: {all: [bases, m]}\n"
    )

    base, model = recipe.models
    assert recipes.root / "team" / "x.gguf" == base.base.path  # type: ignore[union-attr]
    assert ("acme/m:latest", ("MIT",)) == (str(model.name), model.licenses)
    assert {"bases": ("base",), "all": ("base", "m")} == recipe.groups
    assert ["recipe.yaml", "all.yaml", "LICENSE"] == [path.name for path in recipe.files]


def test_defaults_flow_up_not_down(recipes: Recipes) -> None:
    """Models of an included file do not get the defaults of the file that includes it."""
    recipes.write("inner.yaml", "models: {inner: {from: x}}\n")

    models = recipes.models("include: inner.yaml\ndefaults: {system: outer}\nmodels: {m: {from: x}}\n")

    assert {"inner": "", "m": "outer"} == {key: model.system for key, model in models.items()}


def test_a_file_included_twice_counts_once(recipes: Recipes) -> None:
    """Two files may include the same third one."""
    recipes.write("common.yaml", "models: {c: {from: x}}\ndefaults: {system: common}\n")
    recipes.write("a.yaml", "include: common.yaml\nmodels: {a: {from: x}}\n")
    recipes.write("b.yaml", "include: ./common.yaml\nmodels: {b: {from: x}}\n")

    models = recipes.models("include: [a.yaml, b.yaml]\nmodels: {m: {from: x}}\n")

    assert {"c": "common", "a": "common", "b": "common", "m": "common"} == {k: v.system for k, v in models.items()}


# -- matrix ------------------------------------------------------------------------------------------------------


def test_matrix_makes_one_variant_per_combination(recipes: Recipes) -> None:
    """Axes set fields of their name and variables; ids and default names follow from the values, in axis order."""
    models = recipes.models("""\
models:
  m:
    from: x
    matrix: {quantize: [Q4_K_M, Q8_0], ctx: [2048, 8192]}
    parameters: {num_ctx: "${ctx}"}
""")

    assert ["m:Q4_K_M-2048", "m:Q4_K_M-8192", "m:Q8_0-2048", "m:Q8_0-8192"] == list(models)
    assert list(models) == [str(model.name) for model in models.values()]
    assert ("Q8_0", {"num_ctx": 2048}) == (models["m:Q8_0-2048"].quantize, models["m:Q8_0-2048"].parameters)


def test_matrix_includes_and_excludes(recipes: Recipes) -> None:
    """`exclude` drops combinations, `include` adds one or adds to one."""
    models = recipes.models("""\
models:
  m:
    from: x
    matrix:
      quantize: [Q4_0, Q8_0]
      size: [s, l]
      exclude: [{quantize: Q8_0, size: l}]
      include:
        - {quantize: F16, size: s}
        - {quantize: Q4_0, size: s, parser: special, note: hello}
    model: m:${size}-${quantize | lower}
    system: ${note | default("none")}
""")

    assert ["m:Q4_0-s", "m:Q4_0-l", "m:Q8_0-s", "m:F16-s"] == list(models)
    assert ("special", "") == (models["m:Q4_0-s"].parser, models["m:Q4_0-l"].parser)


def test_inherited_field_yields_to_an_axis(recipes: Recipes) -> None:
    """An axis beats a field from defaults; only the model's own field is a conflict."""
    models = recipes.models("defaults: {quantize: F16}\nmodels: {m: {from: x, matrix: {quantize: [Q8_0]}}}\n")

    assert "Q8_0" == models["m:Q8_0"].quantize


def test_variants_build_on_variants(recipes: Recipes) -> None:
    """A variant is named by its id, which may be made with the axis of the one that builds on it."""
    recipe = recipes.load(
        """\
models:
  b: {from: "{model: a}", extends: .child}
  .child: {from: {model: "a:${quantize}"}, matrix: {quantize: [Q8_0, Q4_0]}, model: "b:${quantize}"}
  a: {from: x, matrix: {quantize: [Q4_0, Q8_0]}}
""".replace('from: "{model: a}", ', "")
    )

    assert ["a:Q8_0", "b:Q8_0", "a:Q4_0", "b:Q4_0"] == [model.id for model in recipe.models]


def test_groups_and_keys_name_all_variants(recipes: Recipes) -> None:
    """A group may hold keys, variants and groups; the key of a matrix stands for all its variants."""
    recipe = recipes.load("""\
models:
  a: {from: x, matrix: {quantize: [Q4_0, Q8_0]}}
  b: {from: x}
groups: {small: [a:Q4_0], all: [small, a, b]}
""")

    assert {"a": ("a:Q4_0", "a:Q8_0"), "small": ("a:Q4_0",), "all": ("a:Q4_0", "a:Q8_0", "b")} == recipe.groups


# -- command line ------------------------------------------------------------------------------------------------


def test_set_overrides_fields_and_keys(recipes: Recipes) -> None:
    """--set replaces a field or a key of one, for one model, for one variant, or for all."""
    text = "models:\n  a.b: {from: x, system: s}\n  m: {from: x, matrix: {quantize: [Q4_0, Q8_0]}}\n"

    models = recipes.models(
        text,
        overrides=(
            "*.parser=p",
            "a.b.parameters.stop=[x, y]",
            "a.b.system=null",
            "a.b.metadata.general.name=N",
            "m:Q8_0.parameters.seed=7",
        ),
    )

    assert {"p"} == {model.parser for model in models.values()}
    assert ({"stop": ["x", "y"]}, "", {"system"}) == (
        models["a.b"].parameters,
        models["a.b"].system,
        models["a.b"].cleared,
    )
    assert "N" == models["a.b"].metadata["general.name"].value
    assert (None, {"seed": 7}) == (models["m:Q4_0"].parameters, models["m:Q8_0"].parameters)


def test_set_needs_no_model_where_there_is_one(recipes: Recipes) -> None:
    """A recipe of one model takes --set FIELD=VALUE."""
    assert "Q8_0" == recipes.model("model: m\nfrom: x\n", overrides=("quantize=Q8_0",)).quantize


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("m.quantize", "'=' and a value are missing"),
        ("m.quantise=Q8_0", "this names no field of a model\n  hint: did you mean quantize"),
        ("x.quantize=Q8_0", "no model 'x' in the recipe"),
    ],
)
def test_bad_set_is_a_usage_error(recipes: Recipes, override: str, message: str) -> None:
    """A --set that cannot work is told apart from a mistake in the recipe."""
    with pytest.raises(UsageError, match=message):
        recipes.load("models: {m: {from: y}}\n", overrides=(override,))


def test_paths_of_set_start_in_the_current_directory(
    recipes: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is typed in a shell means the shell's directory."""
    recipes.write("recipes/r.yaml", "model: m\nfrom: x\n")
    recipes.write("here/s.txt", "hello")
    monkeypatch.chdir(tmp_path / "here")
    options = LoadOptions(overrides=("system={file: s.txt}",), roots=(tmp_path,))

    assert "hello" == load_recipe(tmp_path / "recipes" / "r.yaml", options).models[0].system


def test_fingerprint_tells_options_apart() -> None:
    """Every option that changes how a recipe reads changes the key of the no-op check."""
    options = [
        LoadOptions(),
        LoadOptions(variables=(("a", "1"),)),
        LoadOptions(variables=(("a", "2"),)),
        LoadOptions(overrides=("m.system=x",)),
        LoadOptions(roots=(Path("/tmp"),)),
    ]

    assert len(options) == len({tuple(item.fingerprint()) for item in options})


# -- files -------------------------------------------------------------------------------------------------------


def test_patterns_list_files_and_watch_directories(recipes: Recipes) -> None:
    """A pattern stands for the files it matches, sorted; their directories are part of the recipe's inputs."""
    for name in ("w/b.gguf", "w/a.gguf", "w/.hidden.gguf", "w/sub/c.gguf", "w/n.txt"):
        recipes.write(name, "")

    recipe = recipes.load("model: m\nfiles: [w/*.gguf, 'w/**/c.gguf']\n")

    assert ["a.gguf", "b.gguf", "c.gguf"] == [entry.name for entry in recipe.models[0].files]
    assert {recipes.root / "w", recipes.root / "w" / "sub"} == set(recipe.directories)


def test_names_map_to_paths_or_digests(recipes: Recipes) -> None:
    """A mapping gives every file its name, which a digest needs."""
    digest = "sha256:" + "0" * 64
    model = recipes.model(f"model: m\nfiles: {{b/x.gguf: ./y, a.gguf: '{digest}'}}\n")

    assert [("a.gguf", digest), ("b/x.gguf", recipes.root / "y")] == [
        (entry.name, entry.content) for entry in model.files
    ]


def test_everything_of_a_model_is_carried(recipes: Recipes) -> None:
    """Fields for weights and outputs reach the resolved model, with their places."""
    recipes.write("c/config.json", "{}")
    model = recipes.model("""\
model: m
from: ./c
quantize: q4_k_m
intermediate: f16
allow_requantize: true
rewrite_gguf: true
tensor_types: [{pattern: ffn_down, type: q6_k}, {pattern: ^output, type: Q8_0}]
imatrix: ./i.gguf
pre_tokenizer: llama-bpe
metadata: {general.name: N, a.b: {type: uint32, value: 5}, c: [1, 2], general.url: null}
outputs: {gguf: ./out/m.gguf, modelfile: ./out/Modelfile}
draft_files: ./d.gguf
draft_quantize: Q8_0
""")

    assert [("ffn_down", "Q6_K"), ("^output", "Q8_0")] == [(rule.pattern, rule.type) for rule in model.tensor_types]
    assert (True, True, "f16", "Q8_0") == (
        model.allow_requantize,
        model.rewrite_gguf,
        model.intermediate,
        model.draft_quantize,
    )
    assert recipes.root / "i.gguf" == model.imatrix
    assert {"general.name": ("N", ""), "a.b": (5, "uint32"), "c": ((1, 2), ""), "general.url": (None, "")} == {
        key: (value.value, value.type) for key, value in model.metadata.items()
    }
    assert [("gguf", recipes.root / "out/m.gguf"), ("modelfile", recipes.root / "out/Modelfile")] == [
        (output.kind, output.path) for output in model.outputs
    ]
    assert (3, 11) == (model.positions["quantize"].line, model.positions["quantize"].column)


# -- limits and rare mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models: {m: {from: x}}\ngroups:\n" + "".join(f"  g{n}: [g{n + 1}]\n" for n in range(40)) + "  g40: [m]\n",
            "LIMIT groups nested deeper than 32",
        ),
        (
            "variables:\n"
            + "".join(f"  v{n}: ${{v{n + 1}}}\n" for n in range(80))
            + "  v80: x\nmodel: ${v0}\nfrom: x\n",
            "LIMIT a chain of more than 64 variables",
        ),
        (
            "include: [" + ", ".join(f"i{n}.yaml" for n in range(70)) + "]\nmodel: m\nfrom: x\n",
            "LIMIT more than 64 included files",
        ),
        (
            "model: m\nfrom: x\nquantize: Q8_0\ntensor_types: [{pattern: " + "a" * 251 + ", type: Q8_0}]\n",
            "LIMIT a pattern of 251 characters, at most 250 allowed",
        ),
        ("model: m\nfrom: x\nsystem: {file: big.txt}\n", "LIMIT big.txt: 4,194,305 bytes, at most 4,194,304 allowed"),
        ("model: m\nfiles: 'deep/**/*.gguf'\n", "LIMIT directories nested deeper than 16 below a '**'"),
        ("model: m\nfrom: x\nsystem: {file: nowhere/at/all.txt}\n", "PATH nowhere/at/all.txt: no such file"),
        ('model: m\nfrom: "./a\\0b"\n', "PATH a path cannot hold NUL"),
        ("models: {m: {from: x, matrix: {a-b: [c]}}}\n", "TYPE 'a-b' cannot be the name of an axis"),
        ("variables: {a: b}\nmodel: m\nfrom: x\nsystem: ${a | replace('', 'b')}\n", "cannot replace nothing"),
        ("variables: {a: b}\nmodel: m\nfrom: x\nsystem: ${a | default('b'}\n", "')' is expected after the arguments"),
        ("include: other.yaml\nmodels: {m: {from: x}}\ngroups: {g: m}\n", "DUPLICATE a second group with the key 'g'"),
        (
            '{"a": [' + ", ".join(["1"] * 100_001) + "]}",
            "LIMIT too many values",
        ),
    ],
    ids=lambda value: value.split(" ")[0] if value.isupper() or len(value) < 60 else "",
)
def test_limits_and_rare_mistakes(recipes: Recipes, text: str, expected: str) -> None:
    """Every budget is checked, and every mistake that needs files beside the recipe has its message."""
    recipes.write("big.txt", "x" * ((4 << 20) + 1))
    recipes.write("other.yaml", "groups: {g: []}\nmodels: {n: {from: x}}\n".replace("[]", "n"))
    recipes.write("/".join(["deep"] * 20) + "/x.gguf", "")
    for number in range(70):
        recipes.write(f"i{number}.yaml", "variables: {}\n")

    errors = recipes.errors(text)

    assert any(expected in error for error in errors), errors


def test_large_create_requests_are_read(recipes: Recipes) -> None:
    """Images make requests larger than any recipe; JSON may have 16 MiB, YAML may not."""
    image = "aGkA" * 400_000
    request = f'{{"model": "m", "from": "x", "messages": [{{"role": "user", "content": "", "images": ["{image}"]}}]}}'

    assert [image] == recipes.model(request, name="create.json").messages[0]["images"]
    assert "LIMIT" in recipes.errors(f"model: m\nfrom: x\nsystem: {image}\n")[0]


def test_null_drops_inherited_outputs(recipes: Recipes) -> None:
    """Mappings in which null means nothing when the model is made lose the key."""
    models = recipes.models(
        "defaults: {outputs: {gguf: ./a.gguf, modelfile: ./Modelfile}, info: {capabilities: [a]}}\n"
        "models: {m: {from: x, outputs: {gguf: null}, info: {capabilities: null}}}\n"
    )

    assert ["modelfile"] == [output.kind for output in models["m"].outputs]
    assert {"capabilities"} == models["m"].cleared


def test_one_stop_text_is_a_list(recipes: Recipes) -> None:
    """`stop` may be one text; what is stored is a list."""
    assert {"stop": ["a"]} == recipes.model("model: m\nfrom: x\nparameters: {stop: a}\n").parameters
