"""What is known about the GGUF layers of models, read once for each blob and then remembered.

Opening the header of a large vocabulary takes a noticeable part of a second, and a blob never changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from modelbuild.digest import Digest, sha256_hex
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.plan.compose import GgufFacts
from modelbuild.plan.layer_kind import describe_file_type, describe_parameter_count
from modelbuild.store.blobs import BlobStore
from modelbuild.store.state import ActionRecord, State

#: Raised when a field is added or read differently.
_FACTS_VERSION = 1
_CHAT_TEMPLATE = "tokenizer.chat_template"


def read_gguf_facts(blobs: BlobStore, digest: Digest, state: State) -> GgufFacts:
    """The facts about one GGUF blob; InputError when it is none."""
    manifest = json.dumps({"facts": _FACTS_VERSION, "blob": digest})
    key = sha256_hex(manifest.encode())
    record = state.result(key)
    if record is not None:
        return GgufFacts(**json.loads(record.result))
    header = open_gguf(blobs.path(digest))
    facts = GgufFacts(
        header.kv.get_string("general.architecture") or "",
        describe_parameter_count(header),
        describe_file_type(header),
        header.kv.get_string(_CHAT_TEMPLATE) or "",
    )
    state.record_action(f"facts {digest}", ActionRecord(key, manifest, json.dumps(asdict(facts))))
    return facts
