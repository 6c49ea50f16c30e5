"""Looks for inputs that break a reader, guided by coverage: `python -m tests.fuzz.run [TARGET ...] [--seconds N]`.

Needs atheris (`pip install 'modelbuild[fuzz]'`). Each target runs in a process of its own. What it finds is written to
tests/data/fuzz/TARGET/, where the replay test picks it up; interesting inputs are kept in --corpus for the next run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path(__file__).parents[1] / "data" / "fuzz"
#: New address space; a reader that wants more fails with MemoryError.
MEMORY_BYTES = 1 << 30
#: Of one input, with coverage being measured; the replay test allows one second without.
SECONDS_PER_INPUT = 10
INPUT_BYTES = 16 << 10


def main() -> int:
    """The number of targets with findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all when none is named")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "modelbuild-fuzz")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        _fuzz(options.targets[0], options.seconds, options.corpus)
    from tests.fuzz.readers import READERS

    unknown = sorted(set(options.targets) - READERS.keys())
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(READERS)}")
    command = [sys.executable, "-m", "tests.fuzz.run", "--here", f"--seconds={options.seconds}"]
    failed = 0
    for name in options.targets or READERS:
        print(f"--- {name}", flush=True)  # noqa: T201
        failed += bool(subprocess.run([*command, f"--corpus={options.corpus}", name], check=False).returncode)
    return failed


def _fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Does not return: ends the process with status 0, or another one after a finding."""
    import atheris

    with atheris.instrument_imports(include=["modelbuild"], exclude=["modelbuild.quantize"]):
        from tests.fuzz.readers import READERS, settle

        reader = READERS[name]
        for seed in reader.seeds:
            reader.read(seed)  # some modules are imported when they are needed

    directory, found = corpus / name, FOUND / name
    for place in (directory, found):
        place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (directory / f"seed-{number}").write_bytes(seed)
    pieces = corpus / f"{name}.dict"
    escaped = ("".join(map("\\x{:02x}".format, piece)) for piece in reader.pieces)
    pieces.write_text("".join(f'"{text}"\n' for text in escaped))
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY_BYTES, resource.RLIM_INFINITY))
    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_PER_INPUT}", f"-max_len={INPUT_BYTES}"]
    options = [f"-dict={pieces}"] if reader.pieces else []
    options += [f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, *options, str(directory)], lambda data: settle(reader, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
