"""Plays recorded scenarios of the create API against the library, without HTTP.

The comparison itself is that of the replay tool which comes with the recordings; here a request is answered by calling
the library instead of a server.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from modelbuild.digest import Digest, is_digest
from modelbuild.engine.create import CreateOptions, Status, create_model
from modelbuild.errors import ModelbuildError
from modelbuild.model_name import parse_name
from modelbuild.recipe.reference import local_name
from modelbuild.recipe.request import RequestError, parse_create_request
from modelbuild.store.state import State
from modelbuild.store.store import Store

#: How GGUF layers are compared, strictest first.
LEVELS = ("exact", "values", "types", "tensors", "any")
_NDJSON, _JSON = "application/x-ndjson", "application/json"
Answer = tuple[int, dict[str, str], bytes]


def load_replay(golden: Path) -> ModuleType:
    """The replay tool of the recordings."""
    spec = importlib.util.spec_from_file_location("golden_replay", golden / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def play(replay: ModuleType, scenario: Path, store: Path, level: str) -> list[str]:
    """What differs from the recording at a level of comparison; an empty list when nothing does."""
    recorded = json.loads(scenario.read_text())
    inputs = scenario.parent / "inputs" / "expected-gguf.json"
    arguments = argparse.Namespace(
        store=str(store), base_url=None, server_cmd=None, documented="on", gguf=level, strict_store=False, raw=False
    )
    context = _context_type(replay)(arguments)
    context.dir = str(scenario.parent)
    recorded["steps"] = [step if _is_answered(step) else {"action": "left out"} for step in recorded["steps"]]
    gguf = json.loads(inputs.read_text())
    try:
        context.wipe()
        answers = replay.run_steps(context, recorded, arguments, gguf)
        return _differences(replay, context, recorded, answers, arguments, gguf)
    finally:
        context.state.close()


def _differences(
    replay: ModuleType, context: Any, recorded: Any, answers: Any, arguments: argparse.Namespace, gguf: Any
) -> list[str]:
    plain = replay.build_digest_map

    def with_templates(ctx: Any, store: Any, gg: Any, level: str) -> dict[str, str]:
        """Known templates are our own texts: equal when a template of that name is meant."""
        mapped: dict[str, str] = plain(ctx, store, gg, level) if level != "exact" else {}
        return mapped | _template_map(ctx, store)

    context.digest_map = with_templates(context, recorded["store"], gguf, "exact") if "store" in recorded else {}
    replay.build_digest_map = with_templates
    try:
        found: list[str] = replay.evaluate(context, recorded, answers, arguments, gguf)
        alternatives = [
            accept
            for key in ("documented_difference", "recommended_deviation")
            for accept in (recorded.get(key) or {}).get("accept", [])
        ]
        if not found or any(
            not replay.evaluate(context, recorded, answers, arguments, gguf, accept) for accept in alternatives
        ):
            return []
        return found
    finally:
        replay.build_digest_map = plain


def _template_map(context: Any, store: Any) -> dict[str, str]:
    mapped: dict[str, str] = {}
    manifests, _ = context.snapshot()
    named = {digest for digest, info in store["blobs"].items() if "named_template" in info}
    for path, text in store["manifests"].items():
        if path not in manifests:
            continue
        expected, actual = json.loads(text)["layers"] or [], json.loads(manifests[path])["layers"] or []
        for one, other in zip(expected, actual, strict=False):
            if one["digest"] in named and one["mediaType"] == other["mediaType"]:
                mapped[other["digest"]] = one["digest"]
    return mapped


def _is_answered(step: Any) -> bool:
    """A step that the library can answer; what it says about bad blobs and names is the server's own affair."""
    if "action" in step:
        return True
    path, method = step["request"]["path"], step["request"]["method"]
    if path == "/api/create":
        return bool(method == "POST")
    wanted = (("POST", "/api/blobs/"), ("DELETE", "/api/delete"), ("POST", "/api/copy"))
    return step["response"]["status"] < 400 and any(method == m and path.startswith(p) for m, p in wanted)


def _context_type(replay: ModuleType) -> Any:
    class LibraryContext(replay.Ctx):  # type: ignore[name-defined,misc]
        """Answers requests by calling the library."""

        def __init__(self, arguments: argparse.Namespace) -> None:
            super().__init__(arguments)
            root = Path(arguments.store)
            self.library = Store(root)
            self.state = State(root.parent / "cache")

        def action(self, step: Any) -> None:
            if step["action"] != "left out":
                super().action(step)

        def http(
            self, method: str, path: str, body: bytes | None = None, headers: Any = None, chunked: bool = False
        ) -> Answer:
            if path.startswith("/api/blobs/"):
                return self._upload(path.rpartition("/")[2], body or b"")
            if path == "/api/create":
                return _create(body or b"", self.library, self.state)
            return self._change(path, body or b"")

        def _upload(self, digest: str, body: bytes) -> Answer:
            if is_digest(digest) and self.library.blobs.size_of(Digest(digest)) is not None:
                return 200, {}, b""
            return (201 if digest == self.library.blobs.put(body) else 400), {}, b""

        def _change(self, path: str, body: bytes) -> Answer:
            fields = json.loads(body or b"{}")
            try:
                if path == "/api/copy":
                    names = [self.library.spelling(parse_name(fields[key])) for key in ("source", "destination")]
                    self.library.copy(*names)
                else:
                    name = local_name(fields.get("model") or fields.get("name") or "")
                    self.library.remove(self.library.spelling(parse_name(name)))
            except ModelbuildError:
                return 400, {}, b""
            return 200, {}, b""

    return LibraryContext


def _create(body: bytes, store: Store, state: State) -> Answer:
    """The answer of the create API, stream or not."""
    lines: list[dict[str, object]] = []

    def report(status: Status) -> None:
        lines.append(status.to_json())

    streams = True
    try:
        request = parse_create_request(body)
        streams = request.stream
        create_model(request, store, state, report, CreateOptions(rewrite_gguf=True))
    except RequestError as error:
        answer: dict[str, object] = {"error": error.message}
        if not lines or not streams:
            return error.status, {"content-type": _JSON}, json.dumps(answer).encode()
        lines.append(answer)
    if not streams:
        return 200, {"content-type": _JSON}, json.dumps(lines[-1]).encode()
    return 200, {"content-type": _NDJSON}, b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def has_answered_steps(recorded: Any) -> bool:
    """Is there anything in a scenario that the library can answer?"""
    return any("request" in step and _is_answered(step) for step in recorded["steps"])


def create_from_file(source: Path, root: Path) -> Path:
    """The weights of a model created, with rewriting, from one GGUF file: their blob."""
    store, state = Store(root / "models"), State(root / "cache")
    try:
        digest = store.blobs.put(source.read_bytes())
        body = json.dumps({"model": "m", "files": {source.name: digest}, "stream": False}).encode()
        status, _, answer = _create(body, store, state)
        assert status == 200, answer
    finally:
        state.close()
    found = store.find(parse_name("m"))
    assert found is not None
    return store.blobs.path(found[0].layers[0].digest)
