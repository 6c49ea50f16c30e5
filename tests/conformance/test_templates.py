"""Templates against recorded answers of an Ollama server: errors, detection, capabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.template import TemplateError, check_template, detect_template
from modelbuild.template.capabilities import ModelTraits, listed_capabilities, shown_capabilities, shown_template
from modelbuild.template.known import known_template
from modelbuild.template.parser import parse_template
from modelbuild.template.traits import gguf_traits, projector_traits

pytestmark = pytest.mark.conformance

#: Known templates whose recorded bytes cannot be told from their format; ours render the same conversations.
DIFFERENT_BYTES = {"command-r", "gemma3-instruct", "llama2-chat"}
STORED_AS_TEMPLATE = "application/vnd.ollama.image.template"


def scenario(path: Path) -> Any:
    """One recorded scenario."""
    return json.loads(path.read_text("utf-8"))


def chat_template(path: Path) -> str:
    """The chat template of a GGUF file, empty without one."""
    return gguf_traits(open_gguf(path).kv).chat_template


def test_syntax_errors(shared: Path) -> None:
    """Every recorded refusal of a template has the recorded text."""
    texts = 0
    for step in scenario(shared / "golden/api/val-template-syntax.json")["steps"]:
        with pytest.raises(TemplateError) as caught:
            check_template(step["request"]["json"]["template"])

        assert step["response"]["json"]["error"] == caught.value.ollama_message
        texts += 1
    assert 5 == texts


def test_recorded_templates_are_accepted(shared: Path) -> None:
    """Every template that the server took in any scenario is accepted and kept byte for byte."""
    count = 0
    for path in sorted((shared / "golden/api").glob("*.json")):
        for step in scenario(path).get("steps", []):
            body = step.get("request", {}).get("json")
            if isinstance(body, dict) and body.get("template") and step["response"]["status"] == 200:
                assert body["template"] == check_template(body["template"]).text
                count += 1
    assert count >= 16


def detections(shared: Path) -> Iterator[tuple[str, Path, str, str]]:
    """Recorded creations from one GGUF: scenario, file, name of the recognised template, digest of the layer."""
    for path in sorted((shared / "golden/api").glob("autotemplate-*.json")):
        record = scenario(path)
        inputs = {action["file"] for action in record["setup"] if action.get("action") == "upload"}
        files = {hashlib.sha256((path.parent / name).read_bytes()).hexdigest(): path.parent / name for name in inputs}
        for step in record["steps"]:
            body = step["request"].get("json")
            digests = list((body or {}).get("files", {}).values()) if isinstance(body, dict) else []
            if len(digests) != 1 or "template" in body:
                continue
            lines = [line.get("status", "") for line in step["response"]["ndjson"]]
            names = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("using autodetected template")]
            digest = next((d for d, blob in record["store"]["blobs"].items()
                           if names and blob.get("named_template") == names[0]), "")  # fmt: skip
            yield path.stem, files[digests[0].removeprefix("sha256:")], "".join(names), digest


def test_detection(shared: Path) -> None:
    """All recorded chat templates are recognised, or not, as the server did."""
    found = [(name, detect_template(chat_template(file)), expected) for name, file, expected, _ in detections(shared)]

    assert [] == [row for row in found if (row[1].name if row[1] else "") != row[2]]
    assert len(found) >= 19


def test_template_bytes(shared: Path) -> None:
    """The known templates have the recorded bytes, except those named above."""
    recorded = {name: digest for _, _, name, digest in detections(shared) if digest}
    ours = {name: f"sha256:{hashlib.sha256(known_template(name).encode()).hexdigest()}" for name in recorded}

    assert DIFFERENT_BYTES == {name for name in recorded if ours[name] != recorded[name]}
    assert 12 == len(recorded)


def test_stop_texts(shared: Path) -> None:
    """The stop texts of a recognised template are those of the recorded params layer."""
    for name, file, expected, _ in detections(shared):
        record = scenario(shared / f"golden/api/{name}.json")
        params = {
            blob["text"] for blob in record["store"]["blobs"].values() if blob.get("text", "").startswith('{"stop"')
        }
        found = detect_template(chat_template(file))
        if found is None or not expected or name == "autotemplate-merge":
            continue
        text = json.dumps({"stop": list(found.stop)}, ensure_ascii=False, separators=(",", ":"))
        assert text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n" in params


def shown_models(shared: Path) -> Iterator[tuple[str, ModelTraits, Any, Any]]:
    """Models whose making is one request, with the recorded answer of show and the line of the list."""
    for path in sorted((shared / "golden/api").glob("capabilities-*.json")):
        record = scenario(path)
        traits: dict[str, ModelTraits] = {}
        listed: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        for step in record["setup"] + record["steps"]:
            request, response = step.get("request"), step.get("response", {})
            if request is None:
                file = path.parent / step["file"]
                gguf = gguf_traits(open_gguf(file).kv)
            elif request["path"] == "/api/create":
                body = request["json"]
                template = parse_template(body["template"]) if "template" in body else None
                traits[body["model"]] = ModelTraits(parser=body.get("parser", ""), family=gguf.architecture,
                                                    template=template, gguf=gguf)  # fmt: skip
            elif request["path"] == "/api/show":
                shown[request["json"]["model"]] = response["json"]
            else:
                models = response["json"]["models"]
                rows = models["$set"] if isinstance(models, dict) else models
                listed = {row["name"].removesuffix(":latest"): row for row in rows}
        for name, answer in shown.items():
            yield f"{path.stem}:{name}", traits[name], answer, listed[name]


def test_capabilities(shared: Path) -> None:
    """show and the list name the recorded capabilities in the recorded order, and show the recorded template."""
    count = 0
    for name, traits, shown, listed in shown_models(shared):
        assert tuple(shown["capabilities"]) == shown_capabilities(traits), name
        assert tuple(listed["capabilities"]) == listed_capabilities(traits), name
        assert shown["template"] == shown_template(traits), name
        count += 1
    assert 8 == count


def test_unknown_chat_template_is_shown(shared: Path) -> None:
    """A GGUF whose chat template is unknown shows that template and the capabilities in its words."""
    traits = ModelTraits(gguf=gguf_traits(open_gguf(shared / "golden/api/inputs/ct-far.gguf").kv))

    assert ("tools", "thinking", "completion") == shown_capabilities(traits)
    assert ("completion",) == listed_capabilities(traits)
    assert traits.gguf is not None
    assert traits.gguf.chat_template == shown_template(traits)


def test_projectors(shared: Path) -> None:
    """Models with projectors show the recorded capabilities."""
    record = scenario(shared / "golden/api/gguf-projector.json")
    answers = [step["response"]["json"] for step in record["steps"] if step["request"]["path"] == "/api/show"]
    files = [shared / "golden/api" / action["file"] for action in record["setup"] if action.get("action") == "upload"]
    headers = [open_gguf(file).kv for file in files]
    models = [kv for kv in headers if kv.get_string("general.architecture") != "clip"]
    projectors = tuple(projector_traits(kv) for kv in headers if kv.get_string("general.architecture") == "clip")

    traits = ModelTraits(gguf=gguf_traits(models[0]), projectors=projectors[:1])

    assert tuple(answers[0]["capabilities"]) == shown_capabilities(traits)
