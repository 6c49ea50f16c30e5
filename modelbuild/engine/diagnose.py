"""What `modelbuild doctor` reports: versions, directories and what their file systems can do, kernels.

Nothing is left behind: a directory is tried with two small files in a directory of their own.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from modelbuild import __version__
from modelbuild.extras import EXTRAS, has_extra, install_hint
from modelbuild.quantize.kernels import VARIABLE, KernelPath, active_path
from modelbuild.records import record
from modelbuild.store.adopt import FICLONE

#: Larger than what a file system would keep inside an inode, so that a clone is one of blocks.
_PROBE_BYTES = 1 << 16
#: Distributions whose version matters in a report.
_DISTRIBUTIONS = ("click", "pyyaml", "jsonschema", "numpy", "gguf", "watchdog", "rich", "blake3")


@record
class Place:
    """A directory that is used, and what its file system can do; None where nothing could be written to find out."""

    role: str
    path: str
    exists: bool
    free_bytes: int | None
    reflink: bool | None
    hard_link: bool | None


@record
class Kernels:
    """Which kernels pack weights, and why; `hint` says how to get the fast ones, empty when they are active."""

    active: str
    reason: str
    available: tuple[str, ...]
    fallback_types: tuple[str, ...]
    processor: str
    hint: str


@record
class Diagnosis:
    """Everything that a report about this installation should say."""

    modelbuild: str
    python: str
    system: str
    distributions: dict[str, str | None]
    extras: dict[str, bool]
    places: tuple[Place, ...]
    kernels: Kernels

    def hints(self) -> list[str]:
        """What could be better, and how."""
        missing = [extra for extra, is_there in self.extras.items() if not is_there]
        locked = [place for place in self.places if place.reflink is None]
        return [
            *(
                f"you may not write to {place.path}: choose another {place.role} with --{place.role}"
                for place in locked
            ),
            *([f"for the missing extras: {install_hint(','.join(missing))}"] if missing else []),
            *([self.kernels.hint] if self.kernels.hint else []),
        ]

    def to_json(self) -> dict[str, object]:
        """As plain lists, dictionaries, strings and numbers."""
        return asdict(self)


def diagnose(places: Sequence[tuple[str, Path]]) -> Diagnosis:
    """Look at this installation. places: roles and directories to try.

    Raises UsageError KERNELS when MODELBUILD_KERNELS names something this machine does not have.
    """
    return Diagnosis(
        modelbuild=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        distributions={name: _version_of(name) for name in _DISTRIBUTIONS},
        extras={extra: has_extra(extra) for extra in EXTRAS},
        places=tuple(probe_place(role, path) for role, path in places),
        kernels=describe_kernels(active_path(check=True)),
    )


def describe_kernels(active: KernelPath) -> Kernels:
    """The active kernels with a hint where faster ones could be had."""
    failed = tuple(type_.name for type_ in active.failed)
    return Kernels(active.name, active.reason, active.available, failed, _processor(), _hint(active))


def _hint(active: KernelPath) -> str:
    if not active.available:
        return (
            "packing is many times slower without compiled kernels: install a C compiler and the headers of Python, "
            "then install modelbuild again from its source"
        )
    if active.name != active.available[-1]:
        return f"packing is slower than this processor allows: unset {VARIABLE}"
    if active.failed:
        return "these types are packed by numpy, because the compiled kernels gave wrong bytes: please report it"
    return ""


def probe_place(role: str, path: Path) -> Place:
    """Try what the file system of a directory can do; of its nearest parent while it does not exist."""
    there = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free_bytes = shutil.disk_usage(there).free
    try:
        with tempfile.TemporaryDirectory(prefix=".modelbuild-doctor-", dir=there) as scratch:
            reflink, hard_link = _try_links(Path(scratch))
    except OSError:
        return Place(role, str(path), path.is_dir(), free_bytes, None, None)
    return Place(role, str(path), path.is_dir(), free_bytes, reflink, hard_link)


def _try_links(directory: Path) -> tuple[bool, bool]:
    """Can files there be cloned, can they be linked?"""
    original = directory / "original"
    original.write_bytes(bytes(_PROBE_BYTES))
    with original.open("rb") as source, (directory / "clone").open("wb") as clone:
        try:
            fcntl.ioctl(clone.fileno(), FICLONE, source.fileno())
            reflink = True
        except OSError:
            reflink = False
    try:
        os.link(original, directory / "link")
    except OSError:
        return reflink, False
    return reflink, True


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
