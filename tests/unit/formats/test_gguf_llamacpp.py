"""Verdicts and values of our GGUF reader beside those of llama.cpp itself."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.limits import padded
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out
from tests.property.test_format_fuzz import mutate
from tests.unit.formats.test_gguf_cases import CASES

pytestmark = pytest.mark.llamacpp

#: Names that are no plain text, an alignment of 2 GiB, and data of 2^60 elements: llama.cpp takes them, we do not.
STRICTER_HERE = {"k04", "k05", "k25", "t04", "t05", "t06", "a04", "t27"}
#: Missing padding after the last tensor: harmless, but llama.cpp wants it.
LENIENT_HERE = {"o09"}

#: Loads the files named on standard input, with their data, and prints one verdict a line. A process of its own,
#: because some files make llama.cpp abort.
_ORACLE = """
import ctypes, sys
from pathlib import Path
import xllamacpp
library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p))]
library.gguf_init_from_file.restype = ctypes.c_void_p
library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
library.gguf_free.argtypes = library.ggml_free.argtypes = [ctypes.c_void_p]
for line in sys.stdin:
    context = ctypes.c_void_p()
    gguf = library.gguf_init_from_file(line.rstrip("\\n").encode(), Params(False, ctypes.pointer(context)))
    print(int(bool(gguf)), flush=True)
    if gguf:
        library.gguf_free(gguf)
        library.ggml_free(context)
"""


def verdicts_of_llamacpp(paths: list[Path]) -> list[bool]:
    """Does llama.cpp load the files? A file that kills it counts as refused."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is the reference here")
    verdicts: list[bool] = []
    while len(verdicts) < len(paths):
        names = "".join(f"{path}\n" for path in paths[len(verdicts) :])
        done = subprocess.run(
            [sys.executable, "-c", _ORACLE], input=names, capture_output=True, text=True, check=False, timeout=60
        )
        verdicts += [line == "1" for line in done.stdout.split()]
        if done.returncode:
            verdicts.append(False)
    return verdicts


def is_accepted(path: Path) -> bool:
    """Does our reader accept the file?"""
    try:
        open_gguf(path)
    except InputError:
        return False
    return True


def test_verdicts_on_crafted_files_agree(tmp_path: Path) -> None:
    """Each crafted file is accepted or refused by both, but for the listed differences."""
    paths = {case: tmp_path / f"{case}.gguf" for case in CASES}
    for case, path in paths.items():
        path.write_bytes(CASES[case][0])

    theirs = dict(zip(paths, verdicts_of_llamacpp(list(paths.values())), strict=True))

    ours = {case: not code for case, (_, code) in CASES.items()}
    assert STRICTER_HERE == {case for case in CASES if theirs[case] and not ours[case]}
    assert LENIENT_HERE == {case for case in CASES if ours[case] and not theirs[case]}


def _seed() -> bytes:
    kv = [writer.string("general.architecture", "llama"), writer.strings("a", ["b", "cd"]), writer.u32("n", 1)]
    layout = lay_out(kv, [("a", (8,), GgmlType.F32), ("b", (256, 2), GgmlType.Q4_K), ("c", (32,), GgmlType.Q8_0)])
    return layout.header + bytes(layout.file_size - layout.data_offset)


def _complete_padding(path: Path) -> None:
    """Add the zeros after the last tensor that we do without and llama.cpp does not."""
    header = open_gguf(path)
    slots = [padded(tensor.offset + tensor.size_bytes, header.alignment) for tensor in header.tensors]
    missing = header.data_offset + max(slots, default=0) - header.size_bytes
    path.write_bytes(path.read_bytes() + bytes(max(0, missing)))


def test_mutated_files_accepted_here_load_there(tmp_path: Path) -> None:
    """Whatever mutation our reader accepts, llama.cpp loads too."""
    chance = random.Random(5)
    seed = _seed()
    accepted: list[Path] = []
    for index in range(300):
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(mutate(seed, chance, ()))
        if is_accepted(path):
            accepted.append(path)
            _complete_padding(path)

    verdicts = verdicts_of_llamacpp(accepted)

    assert len(accepted) > 25
    assert [] == [path.read_bytes() for path, verdict in zip(accepted, verdicts, strict=True) if not verdict]
