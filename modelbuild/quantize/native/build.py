"""Compiles the kernels with the C compiler that is there: for wheels, for editable installs, and by hand.

    python modelbuild/quantize/native/build.py               # in place, beside modelbuild/quantize/kernels.py
    python modelbuild/quantize/native/build.py --sanitize DIR

Needs nothing but Python and its headers, so that the build hook (hatch_build.py) can load it by path.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent
#: One file for every Python from 3.11 on: only the stable interface is used.
EXTENSION = "_native.abi3.so"

#: -fno-math-errno and -fno-trapping-math change no value; they let comparisons and square roots become vectors.
#: -ffp-contract=off keeps a*b+c two roundings: with fused multiply-add the bytes would differ from llama.cpp's.
_FLAGS = (
    "-std=gnu99", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-Wall", "-Wextra",
)  # fmt: skip
#: -O1 would follow every variable through every check: minutes more of compiling for half a minute less of tests.
_SANITIZE = ("-g", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
_COMMON = {"module.c": (), "grid.c": (), "scalar.c": (), "level_baseline.c": ()}
_X86_64 = {
    "level_avx2.c": ("-mavx2",),
    "level_avx512.c": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
}


class NotBuiltError(Exception):
    """There is no usable compiler; the text says what was missing."""


def find_compiler() -> list[str]:
    """The compiler's command: CC, else the one Python was built with, else cc, gcc or clang."""
    if os.name != "posix":
        message = "the kernels are written for GCC and Clang on POSIX systems"
        raise NotBuiltError(message)
    chosen = os.environ.get("CC")
    candidates = [chosen] if chosen else [sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise NotBuiltError(f"no C compiler found (looked for {', '.join(filter(None, candidates))})")


def compile_extension(directory: Path, *, sanitize: bool = False) -> Path:
    """Compile into `directory` and return the extension's path; NotBuiltError with the compiler's words otherwise."""
    compiler = find_compiler()
    flags = [*_FLAGS, *(_SANITIZE if sanitize else ()), *shlex.split(os.environ.get("CFLAGS", ""))]
    include = f"-I{sysconfig.get_path('include')}"
    units = _COMMON | (_X86_64 if platform.machine().lower() in ("x86_64", "amd64") else {})
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:

        def compile_unit(name: str) -> str:
            target = str(Path(scratch, name).with_suffix(".o"))
            _run([*compiler, *flags, *units[name], include, "-c", str(SOURCES / name), "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_unit, units))
        # Linked aside and renamed, so that a process that has the old one loaded keeps it.
        linked = Path(scratch, EXTENSION)
        _run([*compiler, *(_SANITIZE if sanitize else ()), *_link_flags(), *objects, "-o", str(linked), "-lm"])
        target = directory / EXTENSION
        placed = shutil.copy(linked, target.with_suffix(f".{os.getpid()}"))
        Path(placed).replace(target)
    return target


def _link_flags() -> list[str]:
    shared = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    return [*shared, *shlex.split(os.environ.get("LDFLAGS", ""))]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise NotBuiltError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    sys.stderr.write(done.stderr)


def main() -> int:
    """Compile from the command line; exit status 1 with the reason when that fails."""
    parser = argparse.ArgumentParser(description="Compile the kernels.")
    parser.add_argument("directory", nargs="?", type=Path, default=SOURCES.parent, help="where to put the extension")
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined-behaviour sanitizers")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{compile_extension(arguments.directory, sanitize=arguments.sanitize)}\n")
    except NotBuiltError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
