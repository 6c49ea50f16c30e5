"""Which known chat template a model's own files have, and how surely: what `explain` says about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.engine.layer_facts import read_gguf_facts
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.plan.decide import Result
from modelbuild.plan.graph import Action, ImportWork, LayerSlot, PublishWork, SlotRole
from modelbuild.store.state import State
from modelbuild.store.store import Store
from modelbuild.template import detect_template


def template_evidence(
    publish: Action, actions: Mapping[str, Action], results: Mapping[str, Result], store: Store, state: State
) -> Iterator[str]:
    """One line for every chat template in the model's own files; nothing for files that are yet to be made.

    results: of the actions that are up to date.
    """
    work = publish.work
    if not isinstance(work, PublishWork) or "template" in work.model.cleared:
        return
    for slot in work.slots_of(SlotRole.FILES):
        text = _chat_template(slot, actions, results, store, state) if slot.kind == "model" else ""
        if not text:
            continue
        found = detect_template(text)
        if found is None:
            yield "its chat template is none of the known ones; clients use it as it is"
        else:
            unused = "; not used, because the recipe has a template" if work.model.template else ""
            yield f"{found.evidence()}{unused}"


def _chat_template(
    slot: LayerSlot, actions: Mapping[str, Action], results: Mapping[str, Result], store: Store, state: State
) -> str:
    result, work = results.get(slot.action), actions[slot.action].work
    if result is not None:
        return read_gguf_facts(store.blobs, result.digest, state).chat_template
    if isinstance(work, ImportWork):
        return open_gguf(work.path).kv.get_string("tokenizer.chat_template") or ""
    return ""
