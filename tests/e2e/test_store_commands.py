"""list, show, copy, rm, diff, verify, export and import: what a user sees of the store, and what it does to it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from modelbuild.model_name import parse_name
from modelbuild.store.store import Store
from tests.small_gguf import TENSORS, llama_keys, write_gguf
from tests.space import Space

RECIPE = """
models:
  base:
    from: ./base.gguf
    system: You are the base.
    template: "{{ .System }} {{ .Prompt }}"
    license: [MIT, Apache-2.0]
    parameters: {temperature: 0.5, stop: ["<|end|>", "b"]}
  child:
    from: {model: base}
    system: You are the child.
"""


@pytest.fixture
def built(space: Space) -> Space:
    """A store with two models, one on the other."""
    space.write("base.gguf", write_gguf())
    space.recipe(RECIPE)
    space.build()
    return space


def blob_of(space: Space, model: str, kind: str) -> Path:
    """The blob of a model's only layer of a kind."""
    store = Store(space.store)
    found = store.find(parse_name(model))
    assert found is not None
    (layer,) = found[0].of_kind(kind)
    return store.blobs.path(layer.digest)


def damage(path: Path) -> None:
    """Change one byte, keeping the size; a linked source is left alone."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_copy_and_rm(built: Space) -> None:
    """A copy is another manifest; removing tells what it freed, and near names for a wrong one."""
    assert "copied base:latest to mine/base:v1\n" == built.run("copy", "base", "mine/base:v1").stdout
    before = built.blobs()
    assert built.run("rm", "base").stdout.startswith("removed base:latest (0 B freed)")
    assert before == built.blobs()

    missing = built.run("rm", "mine/bas:v1")
    assert 1 == missing.status
    assert "did you mean mine/base:v1?" in missing.stderr

    assert 0 == built.run("rm", "child", "mine/base:v1").status
    assert set() == built.blobs()
    assert not (built.store / "manifests").exists()
    assert (built.root / "base.gguf").exists()


def test_rm_checks_all_names_first(built: Space) -> None:
    """One wrong name, and nothing is removed."""
    assert 1 == built.run("rm", "child", "nope").status
    assert {"base:latest", "child:latest"} == {row["name"] for row in json.loads(built.run("list", "--json").stdout)}


def test_diff_tells_layers_keys_and_tensors(built: Space) -> None:
    """Texts and parameters first, then metadata, shapes and data of the weights."""
    assert "no difference\n" == built.run("diff", "base", "base").stdout
    assert "- system: You are the base.\n+ system: You are the child.\n" == built.run("diff", "base", "child").stdout

    changed = {**TENSORS, "blk.0.attn_k.weight": (32, 32)}
    built.write("other.gguf", write_gguf(llama_keys(general__name="other"), changed, seed=0))
    built.write("more.yaml", "model: more\nfrom: ./other.gguf\nparameters: {temperature: 1}\n")
    assert 0 == built.run("build", "more.yaml").status
    lines = built.run("diff", "base", "more").stdout.splitlines()
    assert "+ model.general.name: other" in lines
    assert "+ model.blk.0.attn_k.weight: F16 [32, 32]" in lines
    assert "- parameters.temperature: 0.5" in lines
    assert "- license[1]: Apache-2.0" in lines
    assert 1 == built.run("diff", "base", "more", "--exit-code").status


def test_diff_of_files_counts_changed_bytes(space: Space) -> None:
    """Same header, other weights; --headers does not read them."""
    space.write("a.gguf", write_gguf(seed=1))
    space.write("b.gguf", write_gguf(seed=2))

    found = json.loads(space.run("diff", "./a.gguf", "./b.gguf", "--json").stdout)
    assert set(TENSORS) == {item["where"] for item in found}
    assert all("bytes differ" in item["new"] for item in found)
    assert "no difference\n" == space.run("diff", "./a.gguf", "./b.gguf", "--headers").stdout


def test_verify_finds_every_kind_of_damage(built: Space) -> None:
    """Wrong content, wrong size, missing, damaged manifest; each with the models that need it."""
    assert "all sound" in built.run("verify").stdout
    damage(blob_of(built, "base", "template"))
    blob_of(built, "child", "system").write_bytes(b"cut")
    blob_of(built, "base", "system").unlink()
    (built.store / "manifests/registry.ollama.ai/library/torn/latest").parent.mkdir()
    (built.store / "manifests/registry.ollama.ai/library/torn/latest").write_bytes(b"")

    outcome = built.run("verify", "--json")
    found = {(item["what"], tuple(item["models"])) for item in json.loads(outcome.stdout)["damages"]}

    assert 1 == outcome.status
    assert ("its content is not what its name says", ("base:latest", "child:latest")) in found
    assert ("3 bytes, 18 expected", ("child:latest",)) in found
    assert ("missing, or no regular file", ("base:latest",)) in found
    assert 4 == len(found)
    assert 3 == len(json.loads(built.run("verify", "--json", "base", "child").stdout)["damages"])


def test_verify_repairs_what_a_recipe_makes(built: Space) -> None:
    """Damaged weights and texts are built again; the store is as it was."""
    built.run("build", "recipe.yaml", "--link", "copy", "--force")
    before = {name: (built.store / "blobs" / name).read_bytes() for name in built.blobs()}
    damage(blob_of(built, "base", "model"))
    damage(blob_of(built, "child", "system"))
    assert 1 == built.run("verify").status

    outcome = built.run("verify", "--repair", "recipe.yaml")

    assert (0, True) == (outcome.status, "all sound" in outcome.stdout)
    damage(blob_of(built, "base", "model"))
    assert [] == json.loads(built.run("verify", "--json", "--repair", "recipe.yaml").stdout)["damages"]
    assert before == {name: (built.store / "blobs" / name).read_bytes() for name in built.blobs()}
    assert {"blobs", "manifests"} == {path.name for path in built.store.iterdir()}


def test_what_no_recipe_makes_stays_damaged(built: Space) -> None:
    """The damaged blob comes back: somebody may still read most of it."""
    built.write("other.yaml", "model: other\nfrom: ./base.gguf\n")
    path = blob_of(built, "child", "system")
    damage(path)
    damaged = path.read_bytes()

    outcome = built.run("verify", "--repair", "other.yaml")

    assert 1 == outcome.status
    assert "other.yaml does not make child:latest" in outcome.stderr
    assert damaged == path.read_bytes()


def test_edited_link_is_named_as_the_cause(built: Space) -> None:
    """A hard-linked source that was changed in place."""
    built.run("build", "recipe.yaml", "--link", "hard", "--force")
    data = bytearray((built.root / "base.gguf").read_bytes())
    data[-1] ^= 1
    (built.root / "base.gguf").write_bytes(data)

    assert "another file is the same inode" in built.run("verify").stderr


def test_archive_gives_the_same_digests_elsewhere(built: Space, tmp_path: Path) -> None:
    """Export, import into an empty store: same manifests to the byte; exporting again gives the same archive."""
    assert 0 == built.run("export", "child", "base", "-o", "models.tar").status
    other = Space(tmp_path / "elsewhere")
    other.root.mkdir()

    assert "imported base:latest" in other.run("import", built.root / "models.tar").stdout
    assert 0 == other.run("export", "base", "child", "-o", "again.tar").status

    assert (built.root / "models.tar").read_bytes() == (other.root / "again.tar").read_bytes()
    assert built.files() == other.files()
    assert "all sound" in other.run("verify").stdout


def test_archive_may_be_compressed(built: Space, tmp_path: Path) -> None:
    """Whatever packed it."""
    import gzip

    assert 0 == built.run("export", "child", "-o", "models.tar").status
    built.write("models.tar.gz", gzip.compress((built.root / "models.tar").read_bytes()))
    built.run("rm", "base", "child")

    assert "imported child:latest" in built.run("import", "models.tar.gz").stdout
    assert "all sound" in built.run("verify").stdout


def test_archive_of_standard_tar_is_read(built: Space) -> None:
    """`tar cf x.tar blobs manifests` in a models directory is an archive as well."""
    with tarfile.open(built.root / "plain.tar", "w") as archive:
        archive.add(built.store / "blobs", "blobs")
        archive.add(built.store / "manifests", "manifests")
    built.run("rm", "base", "child")

    assert "imported base:latest" in built.run("import", "plain.tar").stdout
    assert "all sound" in built.run("verify").stdout


def test_import_does_not_replace_another_model(built: Space) -> None:
    """Unless told to; the same model again is no conflict."""
    assert 0 == built.run("export", "child", "-o", "models.tar").status
    assert 0 == built.run("import", "models.tar").status
    built.run("copy", "base", "child")
    before = built.files()

    outcome = built.run("import", "models.tar")
    assert (2, True) == (outcome.status, "another model child:latest" in outcome.stderr)
    assert before == built.files()
    assert 0 == built.run("import", "models.tar", "--force").status
    assert "You are the child." == blob_of(built, "child", "system").read_text()


def test_show_gives_every_part(built: Space) -> None:
    """Texts as they are, parameters as JSON values, all of it as one object."""
    shown = built.run("show", "child").stdout
    assert "context       128 tokens\nembedding     32\n" in shown
    assert "capabilities  completion\n" in shown
    assert "You are the child." == built.run("show", "child", "--system").stdout
    assert "{{ .System }} {{ .Prompt }}" == built.run("show", "child", "--template").stdout
    assert "MIT\nApache-2.0" == built.run("show", "child", "--license").stdout
    assert 'stop: ["<|end|>", "b"]\ntemperature: 0.5\n' == built.run("show", "child", "--parameters").stdout
    everything = json.loads(built.run("show", "child", "--json").stdout)
    assert ("child:latest", "gguf") == (everything["name"], everything["config"]["model_format"])
    assert ["model", "template", "license", "license", "system", "params"] == [
        layer["mediaType"].rpartition(".")[2] for layer in everything["layers"]
    ]


@pytest.mark.parametrize(
    "options", [("--template", "--system"), ("--json", "--license"), ("--raw", "--json", "--modelfile")]
)
def test_show_gives_one_part_at_a_time(built: Space, options: tuple[str, ...]) -> None:
    """Two parts would run into each other: the command says so, as Ollama's does, and shows nothing."""
    outcome = built.run("show", "child", *options)

    assert (2, "") == (outcome.status, outcome.stdout)
    assert "only one of --" in outcome.stderr


def test_show_escapes_what_would_steer_a_terminal(space: Space) -> None:
    """Texts of models are from strangers; --raw is for files."""
    space.write("base.gguf", write_gguf())
    space.recipe('model: evil\nfrom: ./base.gguf\nsystem: "a\\e]0;title\\a\\tb\\nc"\n')
    space.build()

    assert "a\\u{1b}]0;title\\u{7}\tb\nc" == space.run("show", "evil", "--system").stdout
    assert "a\x1b]0;title\x07\tb\nc" == space.run("show", "evil", "--system", "--raw").stdout
    assert "\x1b" not in space.run("show", "evil").stdout
    assert "\x1b" not in space.run("show", "evil", "--modelfile").stdout


def test_modelfile_makes_the_model_again(built: Space) -> None:
    """What `show --modelfile` prints, built from its own text, is the same model up to where its layers come from."""
    built.write(
        "long.yaml", "model: long\nfrom: child\nparameters: {num_ctx: 1048576, min_p: 0.05}\nrequires: 0.14.0\n"
    )
    assert 0 == built.run("build", "long.yaml").status
    text = built.run("show", "long", "--modelfile").stdout
    assert "PARAMETER num_ctx 1048576\n" in text
    built.write("Modelfile", text)

    assert 0 == built.run("build", "Modelfile").status, built.run("build", "Modelfile").stderr

    made = {row["name"] for row in json.loads(built.run("list", "--json").stdout)} - {"base:latest", "child:latest"}
    (name,) = made - {"long:latest"}
    assert "no difference\n" == built.run("diff", "long", name).stdout


def test_what_a_modelfile_cannot_say_is_left_out_and_told(space: Space) -> None:
    """A text with three quotes at the end of a line has no form there."""
    space.write("base.gguf", write_gguf())
    space.recipe('model: m\nfrom: ./base.gguf\nsystem: |-\n  say """\n  hello"""\n')
    space.build()
    outcome = space.run("show", "m", "--modelfile")

    assert "SYSTEM" not in outcome.stdout
    assert "note: left out: SYSTEM" in outcome.stderr


def test_what_only_recipes_can_say_is_told(space: Space) -> None:
    """A Modelfile has no words for a remote model and for `info`; nobody takes it for the whole model."""
    space.recipe("model: m\nfrom: far\nremote_host: h.example\ninfo: {capabilities: [tools], context_length: 64}\n")
    space.build()
    outcome = space.run("show", "m", "--modelfile")

    for said in (
        "remote_host (far at http://h.example:11434)",
        "info.capabilities (tools)",
        "info.context_length (64)",
    ):
        assert f"note: left out: {said}: a Modelfile has no word for it\n" in outcome.stderr


def test_list_shows_ids_that_ollama_shows(built: Space) -> None:
    """The first digits of the digest, the size of everything, newest facts from the config."""
    rows = json.loads(built.run("list", "--json").stdout)
    lines = built.run("list").stdout.splitlines()

    assert ["NAME", "ID", "SIZE", "TYPE"] == lines[0].split()
    assert [[row["name"], row["listed"][:12]] for row in rows] == [line.split()[:2] for line in lines[1:]]
    assert {"F16"} == {row["file_type"] for row in rows}


def test_edited_link_is_imported_anew(built: Space) -> None:
    """A hard-linked source that changed makes another blob; the wrong one is gone after the next build."""
    built.run("build", "recipe.yaml", "--link", "hard", "--force")
    data = bytearray((built.root / "base.gguf").read_bytes())
    data[-1] ^= 1
    (built.root / "base.gguf").write_bytes(data)

    built.build()

    assert "all sound" in built.run("verify").stdout
    assert data == blob_of(built, "base", "model").read_bytes()
