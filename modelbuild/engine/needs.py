"""What each task takes of the machine, and what the machine has: the numbers that plan/resources.py compares."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import TYPE_CHECKING

from modelbuild.engine.memory import memory_budget, worker_bytes, workers_within
from modelbuild.formats.files import size_of_file
from modelbuild.plan.decide import Result
from modelbuild.plan.graph import Action, AssembleWork, ExportWork, ImportWork
from modelbuild.plan.resources import Resources, scarce_for
from modelbuild.store.staged import SPACE_MARGIN_BYTES, free_space
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.plan.assembly import Assembly

#: Reading, hashing and copying a file: two buffers, and two threads where weights are hashed by tensor.
_STREAM_BYTES = 32 << 20


def machine_limits(store: Store, jobs: int | None) -> Resources:
    """What tasks may take together: `jobs` cores or all, half of the memory that is free, the room on the disk."""
    disk_bytes = max(0, free_space(store.root) - SPACE_MARGIN_BYTES)
    return Resources(jobs or os.cpu_count() or 1, memory_budget(), disk_bytes)


def turns_of(actions: Iterable[Action], need: Resources, limits: Resources) -> tuple[str, ...]:
    """What conversions of all processes with one cache take turns at; nothing for one that leaves room for another.

    The cores are those of the machine even where `--jobs` allows fewer, so that such a build goes on beside others.
    """
    if not any(isinstance(action.work, AssembleWork) for action in actions):
        return ()
    return scarce_for(need, replace(limits, cores=max(limits.cores, os.cpu_count() or 1)))


def need_of_reading() -> Resources:
    """What hashing the inputs of an action takes."""
    return Resources(1, _STREAM_BYTES)


def need_of_copy(action: Action, results: Mapping[str, Result]) -> Resources:
    """What an import or export takes, at most: a file that is linked or cloned needs no room on the disk."""
    if isinstance(action.work, ImportWork):
        return Resources(1, _STREAM_BYTES, size_of_file(action.work.path))
    if isinstance(action.work, ExportWork) and action.work.kind == "gguf":
        return Resources(1, _STREAM_BYTES, sum(results[need].size_bytes for need in action.needs))
    return Resources(1, _STREAM_BYTES)


def need_of_assemblies(assemblies: Sequence[Assembly], limits: Resources) -> Resources:
    """What making files from one read takes: as many cores as there are blocks to pack and memory to do so."""
    from modelbuild.engine.assemble import BLOCKS_PER_WORKER
    from modelbuild.engine.blocks import BLOCK_WEIGHTS, largest_block

    block_weights, results = largest_block(assemblies[0]), len(assemblies)
    weights = sum(prod(tensor.source.shape) for tensor in assemblies[0].tensors)
    cores = workers_within(
        limits.memory_bytes,
        min(limits.cores, max(1, ceil(weights / BLOCK_WEIGHTS))),
        block_weights=block_weights,
        results=results,
        blocks_each=BLOCKS_PER_WORKER,
    )
    each_bytes = worker_bytes(block_weights=block_weights, results=results, blocks_each=BLOCKS_PER_WORKER)
    return Resources(cores, cores * each_bytes, sum(item.layout.file_size for item in assemblies))
