"""Reading weights tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.formats.files import InputFile, open_input
from modelbuild.sources.fingerprint import fingerprint_weights
from tests.checkpoints import write_sparse

TENSORS = {"a": ("F32", (64, 1 << 20)), "b": ("F32", (64, 1 << 20))}


def test_an_interruption_waits_for_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of two large tensors: what runs beside ends after its chunk."""
    path = tmp_path / "model.safetensors"
    size_bytes = write_sparse(path, TENSORS)
    read: list[int] = []
    real = InputFile.read_into

    def counting(self: InputFile, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        real(self, offset, buffer)

    pressed: list[int] = []

    def interrupt(done_bytes: int) -> None:
        if done_bytes > size_bytes // 100 and not pressed:
            pressed.append(done_bytes)
            raise KeyboardInterrupt

    monkeypatch.setattr(InputFile, "read_into", counting)
    with open_input(path) as source, pytest.raises(KeyboardInterrupt):
        fingerprint_weights(source, interrupt)

    assert sum(read) < size_bytes // 2
