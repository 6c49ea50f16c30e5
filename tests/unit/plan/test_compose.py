"""Layer order, inheritance and config of a model: what Ollama's create does, and what `null` adds to it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import Position
from modelbuild.model_name import parse_name
from modelbuild.plan.compose import BaseModel, Composition, GgufFacts, NewLayers, compose_model
from modelbuild.recipe.resolved import ResolvedModel
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import Layer, layer_media_type

LLAMA = GgufFacts("llama", "90K", "F16")
GEMMA4 = GgufFacts("gemma4", "1K", "F16")


def layer(kind: str, text: str, from_: str = "", name: str = "") -> Layer:
    return Layer(layer_media_type(kind), digest_of(text.encode()), len(text), from_, name)


def model(**fields: object) -> ResolvedModel:
    return ResolvedModel("m", parse_name("m"), Position("recipe.yaml", 1, 1), **fields)  # type: ignore[arg-type]


WEIGHTS = layer("model", "weights")
NOTHING_NEW = NewLayers()
BASE = BaseModel(
    "base:latest",
    (
        WEIGHTS, layer("template", "T"), layer("system", "S"), layer("license", "L1"), layer("params", "P"),
        layer("messages", "M"),
    ),
    ModelConfig(
        "gguf", "fam", ("fam", "llama"), "90K", "F16", "r1", "p1", "0.14.0", capabilities=("tools",),
        context_length=999, embedding_length=77, base_name="bb",
    ),
    {"temperature": 1, "stop": ["a", "b"]},
)  # fmt: skip
FACTS: Mapping[Digest, GgufFacts] = {WEIGHTS.digest: LLAMA}


def compose(
    given: ResolvedModel, new: NewLayers = NOTHING_NEW, base: BaseModel | None = BASE, **rest: object
) -> Composition:
    return compose_model(given, base, new, facts=rest.pop("facts", FACTS), **rest)  # type: ignore[arg-type]


def kinds(made: Composition) -> list[str]:
    """The kinds of all layers in order, the params layer in its place."""
    found = [item.kind for item in made.layers]
    if made.parameters is not None:
        found.insert(made.params_index, "params*")
    return found


def test_everything_is_inherited_and_params_move_behind_messages() -> None:
    """A child without fields: layers in order with the base's name, params re-made last, config fields kept or not."""
    made = compose(model())

    assert ["model", "template", "system", "license", "messages", "params*"] == kinds(made)
    assert {"base:latest"} == {item.from_ for item in made.layers}
    assert {"temperature": 1, "stop": ["a", "b"]} == made.parameters
    assert ModelConfig(
        "gguf", "llama", ("llama",), "90K", "F16", "r1", "p1", "0.14.0", capabilities=("tools",)
    ) == made.config  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("template", ["model", "system", "license", "messages", "template", "params*"]),
        ("system", ["model", "template", "license", "messages", "system", "params*"]),
        ("license", ["model", "template", "system", "license", "messages", "license", "params*"]),
        ("messages", ["model", "template", "system", "license", "params*", "messages"]),
    ],
)
def test_new_texts_replace_or_add(kind: str, order: list[str]) -> None:
    """Each step removes the layers of its kind and appends; licences are only appended; messages come after params."""
    assert order == kinds(compose(model(), NewLayers(texts=[layer(kind, "new")])))


def test_all_texts_come_in_ollamas_sequence() -> None:
    """Template, system, licences, params, messages, whatever was there."""
    texts = [layer(kind, f"new {kind}") for kind in ("template", "system", "license", "license", "messages")]

    assert ["model", "license", "template", "system", "license", "license", "params*", "messages"] == kinds(
        compose(model(), NewLayers(texts=texts))
    )


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ({"temperature": 0.6, "top_p": 0.7}, {"temperature": 0.6, "stop": ["a", "b"], "top_p": 0.7}),
        ({"stop": []}, {"temperature": 1, "stop": []}),
        ({"temperature": None}, {"temperature": None, "stop": ["a", "b"]}),
        ({}, {"temperature": 1, "stop": ["a", "b"]}),
    ],
)
def test_own_parameters_win_and_lists_are_replaced_whole(own: dict[str, object], merged: dict[str, object]) -> None:
    """The inherited ones fill the rest; null is a value that is stored."""
    assert merged == compose(model(parameters=own)).parameters


def test_a_base_without_parameters_gives_no_params_layer() -> None:
    """Nothing is invented; an empty params layer of the base stays where it is."""
    base = BaseModel("b:latest", (WEIGHTS, layer("params", "{}")), ModelConfig(), {})

    assert ["model", "params"] == kinds(compose(model(), base=base))
    assert ["model"] == kinds(compose(model(), base=BaseModel("b:latest", (WEIGHTS,), ModelConfig(), {})))


@pytest.mark.parametrize("field", ["template", "system", "license", "messages"])
def test_null_keeps_a_text_away(field: str) -> None:
    """What cannot be cleared upstream: the layer is not taken over."""
    made = compose(model(cleared=frozenset({field})))

    assert field not in kinds(made)
    assert 5 == len(kinds(made))


def test_null_clears_parameters_as_a_whole_or_one_by_one() -> None:
    """The params layer of the base never survives, not even when nothing is left."""
    assert {"temperature": 1} == compose(model(cleared=frozenset({"parameters.stop"}))).parameters
    assert {"seed": 1} == compose(model(parameters={"seed": 1}, cleared=frozenset({"parameters"}))).parameters
    nothing = compose(model(cleared=frozenset({"parameters.stop", "parameters.temperature"})))
    assert (None, False) == (nothing.parameters, "params" in kinds(nothing))


def test_null_clears_config_fields() -> None:
    """Renderer, parser, requires and capabilities are not taken over; own values still count."""
    cleared = frozenset({"renderer", "parser", "requires", "capabilities"})
    config = compose(model(cleared=cleared, parser="mine", info={"capabilities": ["vision"]})).config

    assert ("", "mine", "", ("vision",)) == (config.renderer, config.parser, config.requires, config.capabilities)


def test_null_clears_adapters_and_drafts() -> None:
    """They accumulate otherwise."""
    draft = layer("draft", "d")
    base = BaseModel("b:latest", (WEIGHTS, layer("adapter", "a"), draft), ModelConfig(), {})
    facts = {**FACTS, draft.digest: LLAMA}

    kept = compose(model(), NewLayers(extra=[layer("adapter", "new", "x.gguf")]), base=base, facts=facts)
    assert ["model", "adapter", "draft", "adapter"] == kinds(kept)
    assert {"model_format": "gguf", "architecture": "llama"} == kept.config.draft

    cleared = compose(model(cleared=frozenset({"adapters", "draft_files"})), base=base, facts=facts)
    assert (["model"], None) == (kinds(cleared), cleared.config.draft)


def test_replaced_weights_stand_where_the_old_ones_stood() -> None:
    """A kept one keeps the base's name, a new one has none."""
    two = BaseModel(
        "b:latest",
        (layer("projector", "p"), WEIGHTS, layer("model", "second"), layer("system", "s")),
        ModelConfig(),
        {},
    )
    fresh = layer("model", "fresh")
    made = compose(model(), NewLayers(replacements=[None, fresh]), base=two, facts={**FACTS, fresh.digest: LLAMA})

    assert [("projector", "b:latest"), ("model", "b:latest"), ("model", ""), ("system", "b:latest")] == [
        (item.kind, item.from_) for item in made.layers
    ]


def test_unknown_layers_pass_through_with_their_names() -> None:
    """Embeddings, prompts, tensors of other formats."""
    strange = (
        Layer("application/vnd.ollama.image.tensor", digest_of(b"t"), 1, "", "blk.0"),
        Layer("x/y", digest_of(b"y"), 1),
    )
    made = compose(model(), base=BaseModel("b:latest", strange, ModelConfig(model_format="safetensors"), {}))

    assert [("blk.0", "b:latest"), ("", "b:latest")] == [(item.name, item.from_) for item in made.layers]
    assert "safetensors" == made.config.model_format


def test_files_then_recognised_template_then_adapters_and_drafts() -> None:
    """The order of new layers; the recognised stop texts are below own ones."""
    draft = layer("draft", "d")
    new = NewLayers(
        files=[layer("projector", "p", "a.gguf"), WEIGHTS], detected=[layer("template", "known")],
        extra=[layer("adapter", "a"), draft],
    )  # fmt: skip
    facts = {**FACTS, draft.digest: GEMMA4}
    made = compose(model(), new, None, facts=facts, detected_stop=("<|end|>",))

    assert ["projector", "model", "template", "adapter", "draft", "params*"] == kinds(made)
    assert {"stop": ["<|end|>"]} == made.parameters
    own = compose(model(parameters={"stop": ["X"]}), new, None, facts=facts, detected_stop=("<|end|>",))
    assert {"stop": ["X"]} == own.parameters


def test_own_template_takes_the_place_of_a_recognised_one() -> None:
    """The stop texts stay, as upstream."""
    new = NewLayers(files=[WEIGHTS], detected=[layer("template", "known")], texts=[layer("template", "own")])
    made = compose(model(), new, None, detected_stop=("<|end|>",))

    assert [digest_of(b"own")] == [item.digest for item in made.layers if item.kind == "template"]
    assert {"stop": ["<|end|>"]} == made.parameters


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("gemma4", "gemma4", {"stop": ["<turn|>"]})),
        (
            {"renderer": "mine", "parameters": {"stop": ["Q"], "seed": 1}},
            ("mine", "gemma4", {"stop": ["Q"], "seed": 1}),
        ),
        ({"parser": "theirs", "parameters": {"seed": 2}}, ("gemma4", "theirs", {"stop": ["<turn|>"], "seed": 2})),
        ({"renderer": "a", "parser": "b"}, ("a", "b", None)),
        ({"cleared": frozenset({"renderer", "parser"})}, ("", "", {"stop": ["<turn|>"]})),
        ({"cleared": frozenset({"parameters"})}, ("gemma4", "gemma4", None)),
    ],
)
def test_architectures_bring_renderer_parser_and_stop(fields: dict[str, object], expected: tuple[object, ...]) -> None:
    """Field by field, never over what was given."""
    made = compose(model(**fields), NewLayers(files=[WEIGHTS]), None, facts={WEIGHTS.digest: GEMMA4})

    assert expected == (made.config.renderer, made.config.parser, made.parameters)


@pytest.mark.parametrize(
    ("arch", "renderer"),
    [
        ("laguna", "laguna"),
        ("nemotron_h", "nemotron-3-nano"),
        ("nemotron_h_moe", "nemotron-3-nano"),
        ("nemotron_h_omni", "nemotron-3-nano"),
        ("gemma3", ""),
        ("llama", ""),
    ],
)
def test_other_architectures_bring_a_renderer_at_most(arch: str, renderer: str) -> None:
    """Renderer and parser have one name; stop texts are gemma4's alone."""
    made = compose(model(), NewLayers(files=[WEIGHTS]), None, facts={WEIGHTS.digest: GgufFacts(arch, "1K", "F16")})

    assert (renderer, renderer, None) == (made.config.renderer, made.config.parser, made.parameters)


def test_several_models_repeat_the_architecture_and_the_first_decides_the_rest() -> None:
    """Type and size are those of the first."""
    second = layer("model", "second")
    facts = {**FACTS, second.digest: GgufFacts("llama", "9B", "Q8_0")}
    config = compose(model(), NewLayers(files=[WEIGHTS, second]), None, facts=facts).config

    assert (("llama", "llama"), "90K", "F16") == (config.model_families, config.model_type, config.file_type)


def test_projector_alone_has_no_family() -> None:
    """The config stays empty and families null."""
    assert ModelConfig() == compose(model(), NewLayers(files=[layer("projector", "p")]), None).config


def test_info_wins_over_the_file_and_capabilities_add_up() -> None:
    """A family from info stands before the file's; only capabilities are inherited further."""
    info = {
        "model_family": "fam", "parameter_size": "9B", "quantization_level": "Q1", "base_name": "bb",
        "capabilities": ["vision", 5], "context_length": 8.0, "embedding_length": 4,
    }  # fmt: skip
    config = compose(model(info=info)).config

    assert ModelConfig(
        "gguf", "fam", ("fam", "llama"), "9B", "Q1", "r1", "p1", "0.14.0", capabilities=("tools", "vision", ""),
        context_length=8, embedding_length=4, base_name="bb",
    ) == config  # fmt: skip
    assert ("tools",) == compose(model(info={"capabilities": "x"})).config.capabilities


def test_remote_models_have_host_and_name_and_no_layers() -> None:
    """A stub."""
    made = compose(model(), base=None, remote=("https://ollama.com:443", "gpt-oss:20b"))

    assert ((), "https://ollama.com:443", "gpt-oss:20b") == (
        made.layers,
        made.config.remote_host,
        made.config.remote_model,
    )


def test_a_stub_as_base_gives_its_layers_and_no_remote_fields() -> None:
    """Remote fields are not inherited."""
    stub = BaseModel(
        "stub:latest",
        (layer("system", "s"),),
        ModelConfig(remote_host="h", remote_model="m", capabilities=("completion",)),
        {},
    )
    config = compose(model(), base=stub).config

    assert ModelConfig(capabilities=("completion",)) == config
