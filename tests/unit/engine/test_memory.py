"""Workers within a budget of memory, and where the budget comes from."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from modelbuild.engine import assemble
from modelbuild.engine.memory import memory_budget, workers_within
from tests.checkpoints import write_checkpoint
from tests.space import Space

MIB = 1 << 20


@pytest.mark.parametrize(
    ("budget_mib", "expected"), [(0, 1), (39, 1), (79, 1), (80, 2), (159, 3), (160, 4), (10_000, 4)]
)
def test_fewer_workers_where_memory_is_short(budget_mib: int, expected: int) -> None:
    """ac3: two blocks of a mebi weights at 20 bytes take 40 MiB for each worker; one worker there always is."""
    assert expected == workers_within(budget_mib * MIB, 4, block_weights=MIB, results=1, blocks_each=2)


def test_a_file_without_weights_needs_no_memory() -> None:
    """Nothing is divided by the size of a block that has no weights."""
    assert 4 == workers_within(100, 4, block_weights=0, results=1, blocks_each=2)


def _groups(root: Path, **files: str) -> tuple[Path, Path, Path]:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "process", root / "groups", root / "meminfo"


MEMORY = "MemTotal:       8388608 kB\nMemAvailable:   4194304 kB\n"
CASES: dict[str, tuple[dict[str, str], int]] = {
    "no groups": ({}, 2048),
    "a limit of the group": ({"process": "0::/a/b\n", "groups__a__b__memory.max": f"{512 * MIB}\n"}, 256),
    "a limit of a group around it": ({"process": "0::/a/b\n", "groups__a__memory.max": f"{256 * MIB}\n"}, 128),
    "a container": ({"process": "0::/../x\n", "groups__memory.max": f"{64 * MIB}\n"}, 32),
    "no limit": ({"process": "0::/a\n", "groups__a__memory.max": "max\n"}, 2048),
    "version 1": (
        {"process": "4:cpu:/a\n9:memory:/a\n", "groups__memory__a__memory.limit_in_bytes": f"{128 * MIB}\n"}, 64,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_budget_is_half_of_the_smallest_limit(case: str, tmp_path: Path) -> None:
    """ac4: a container with less memory than the machine has is respected."""
    files, expected_mib = CASES[case]

    assert expected_mib * MIB == memory_budget(*_groups(tmp_path, meminfo=MEMORY, **files))


def test_limits_of_the_address_space_count(tmp_path: Path) -> None:
    """ac4: so is `ulimit -v`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, hard))
    try:
        assert 3 << 29 == memory_budget(*_groups(tmp_path, meminfo="MemAvailable: 99999999 kB\n"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_build_in_little_memory_gives_the_same_bytes(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """ac3: with room for less than one block there is one worker, and the result is the same."""
    write_checkpoint(space.root / "c")
    space.recipe("model: m\nfrom: ./c\nquantize: Q8_0\n")
    space.build("--jobs", "4")
    expected = space.blobs()
    counts: list[int] = []
    pool = assemble.ThreadPoolExecutor
    monkeypatch.setattr(assemble, "ThreadPoolExecutor", lambda count: counts.append(count) or pool(count))
    monkeypatch.setattr(assemble, "memory_budget", lambda: 1000)

    space.build("--jobs", "4", "--force")

    assert ([1], expected) == (counts, space.blobs())
