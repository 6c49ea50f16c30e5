"""A digest of a weights file made of digests of its tensors, so that an edit can be traced to the tensors it touched.

BLAKE3 because it runs at several times the speed of SHA-256 and these digests never leave the cache; a file that
becomes a blob is named by SHA-256 as ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock

from blake3 import blake3

from modelbuild.digest import Digest
from modelbuild.formats.files import InputFile, read_buffer
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.safetensors import open_safetensors
from modelbuild.records import record

_CHUNK_BYTES = 1 << 20
#: Name of the leaf that covers everything before the first tensor.
_HEADER = ""

Progress = Callable[[int], None]


@record
class Fingerprint:
    """digest: of the whole file ("blake3:" and 64 hex digits); tensors: of each tensor's bytes, by name."""

    digest: Digest
    tensors: Mapping[str, str]


@record
class _Span:
    name: str
    offset: int
    size_bytes: int


def fingerprint_weights(source: InputFile, progress: Progress | None = None, *, workers: int = 2) -> Fingerprint:
    """The fingerprint of an open safetensors or GGUF file; every byte that can reach an output is read once.

    progress is called with the bytes done so far, from one thread at a time. Raises InputError for a damaged header.
    """
    spans = [_Span(_HEADER, 0, 0), *_tensor_spans(source.path)]
    spans[0] = _Span(_HEADER, 0, min((span.offset for span in spans[1:]), default=source.size_bytes))
    report = _Reporter(progress)
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_digest_span, source, span, report) for span in spans]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            leaves = {span.name: future.result() for span, future in zip(spans, futures, strict=True)}
        finally:
            report.stop()
            for future in futures:
                future.cancel()
    tree = blake3(json.dumps(leaves, sort_keys=True).encode())
    del leaves[_HEADER]
    return Fingerprint(Digest("blake3:" + tree.hexdigest()), leaves)


def _tensor_spans(path: Path) -> list[_Span]:
    if path.suffix == ".safetensors":
        return [_Span(item.name, item.offset, item.size_bytes) for item in open_safetensors(path).values()]
    header = open_gguf(path)
    return [_Span(item.name, header.data_offset + item.offset, item.size_bytes) for item in header.tensors]


def _digest_span(source: InputFile, span: _Span, report: _Reporter) -> str:
    hasher = blake3()
    buffer = read_buffer(min(_CHUNK_BYTES, span.size_bytes))
    done_bytes = 0
    while done_bytes < span.size_bytes and not report.is_stopped:
        chunk = buffer[: min(_CHUNK_BYTES, span.size_bytes - done_bytes)]
        source.read_into(span.offset + done_bytes, chunk)
        hasher.update(chunk)
        done_bytes += len(chunk)
        report.add(len(chunk))
    return hasher.hexdigest()


class _Reporter:
    """Adds up what several threads have read."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = Lock()
        self._done_bytes = 0
        self.is_stopped = False

    def stop(self) -> None:
        """Let threads end after their chunk: whoever asked has all digests, or wants none any more."""
        self.is_stopped = True

    def add(self, size_bytes: int) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done_bytes += size_bytes
            self._progress(self._done_bytes)
