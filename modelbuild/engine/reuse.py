"""Which tensors of a file to be exist already, packed, in a blob of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.plan.assembly import Assembly
from modelbuild.plan.tensor_key import tensor_key
from modelbuild.store.blobs import BlobStore
from modelbuild.store.state import PackedTensor, State


class TensorRecords:
    """Answers from the state file, for the input files of one action.

    sources: input files by path, each with its digest as it stands in the action key.
    """

    def __init__(self, state: State, blobs: BlobStore, sources: Mapping[Path, Digest]) -> None:
        self._state = state
        self._blobs = blobs
        self._sources = sources
        self._tensors: dict[Digest, Mapping[str, str]] = {}

    def keys(self, assembly: Assembly) -> list[str]:
        """The key of each tensor, in file order; empty where copying would save nothing."""
        importance = {name: item.digest for name, item in assembly.importance.items()}
        return [tensor_key(tensor, self._leaf, importance.get(tensor.name, "")) for tensor in assembly.tensors]

    def reusable(self, keys: Sequence[str]) -> dict[str, tuple[Path, PackedTensor]]:
        """Packed tensors by key that stand in a blob long enough to hold them; check sums are compared when copying."""
        found: dict[str, tuple[Path, PackedTensor]] = {}
        sizes: dict[Digest, int] = {}
        for key in filter(None, keys):
            packed = self._state.packed_tensor(key)
            if packed is None:
                continue
            if packed.blob not in sizes:
                sizes[packed.blob] = self._blobs.size_of(packed.blob) or 0
            if packed.offset + packed.size_bytes <= sizes[packed.blob]:
                found[key] = (self._blobs.path(packed.blob), packed)
        return found

    def _leaf(self, tensor: StoredTensor) -> str | None:
        digest = self._sources.get(tensor.path)
        if digest is None:
            return None
        if digest.startswith("sha256:"):  # a file known as a whole: its tensors are named by their place in it
            return f"{digest}@{tensor.offset}"
        if digest not in self._tensors:
            self._tensors[digest] = self._state.tensor_digests(digest)
        return self._tensors[digest].get(tensor.name)
