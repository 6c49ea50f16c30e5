"""Freeing space: exactly what no model needs, and explanations that remember it."""

from __future__ import annotations

import errno
import os
import shutil
import time
from hashlib import sha256
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.engine.garbage import Candidate, GarbageLimits, choose_garbage
from modelbuild.engine.locks import ActionLocks, Held
from modelbuild.store.store import Store
from tests.space import Space

RECIPE = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: Shared., license: Mine.}
  b: {from: 'big:120b', remote_host: 'https://models.example.com', system: Shared.}
"""


#: The blobs that hold a text of the recipe.
_TEXTS = {f"sha256-{sha256(text.encode()).hexdigest()}": text for text in ("Shared.", "Mine.")}


@pytest.fixture
def built(space: Space) -> Space:
    """Two models that share a blob."""
    space.recipe(RECIPE)
    space.build()
    return space


def _orphan(space: Space, content: bytes, age_s: float) -> str:
    import hashlib

    name = f"sha256-{hashlib.sha256(content).hexdigest()}"
    path = space.write(f"models/blobs/{name}", content)
    os.utime(path, (time.time() - age_s,) * 2)
    return name


def test_gc_leaves_exactly_the_blobs_of_manifests(built: Space) -> None:
    """After any build and gc, blobs are the union of what manifests name."""
    needed = built.blobs()
    _orphan(built, b"left over", 7200)

    outcome = built.run("gc", "--older-than", "0")

    assert 0 == outcome.status, outcome.stderr
    assert needed == built.blobs()
    assert "nothing to do" in built.build().stderr


def test_gc_sweeps_locks_that_killed_runs_left(built: Space) -> None:
    """A build with nothing to do leaves them alone; a lock that somebody has stays."""
    left = built.write("cache/locks/left", "1\n")
    held = ActionLocks(built.cache).try_hold(["name"])
    assert isinstance(held, Held)
    with held:
        assert 0 == built.run("gc").status
        assert 1 == len(list(left.parent.iterdir()))
        assert not left.exists()


def test_du_counts_while_files_come_and_go(built: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build beside it makes and removes files of the cache between the looks of `du`."""
    gone, real = built.write("cache/locks/gone", "1\n"), Path.is_file

    def is_file(path: Path) -> bool:
        found = real(path)
        if path == gone:
            gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", is_file)

    outcome = built.run("du")

    assert (0, False) == (outcome.status, gone.exists()), outcome.stderr


def test_dry_run_lists_exactly_what_gc_deletes(built: Space) -> None:
    """--dry-run names the same files and deletes none."""
    orphan = _orphan(built, b"left over", 7200)
    before = built.files()

    planned = built.run("gc", "--dry-run", "--older-than", "0").stdout
    unchanged = built.files()
    done = built.run("gc", "--older-than", "0").stdout

    assert before == unchanged
    assert planned.replace("would delete", "deleted").replace("would be freed", "freed") == done
    assert orphan in planned


def test_pinned_blob_stays(built: Space) -> None:
    """A pin is a root like a manifest."""
    orphan = _orphan(built, b"left over", 7200)

    built.run("gc", "--older-than", "0", "--pin", orphan.replace("-", ":"))

    assert orphan in built.blobs()


def test_last_runs_are_roots_on_request(built: Space) -> None:
    """What the last run made stays after its model was removed, as long as it is asked to."""
    made = built.blobs()
    shutil.rmtree(built.store / "manifests")

    built.run("gc", "--older-than", "0", "--keep-runs", "1")
    kept = built.blobs()
    built.run("gc", "--older-than", "0")

    assert made >= kept
    assert {"Shared.", "Mine."} <= {_TEXTS[name] for name in kept if name in _TEXTS}
    assert set() == built.blobs()


def test_a_store_that_refuses_is_one_clear_error(built: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be deleted in a read-only store: gc says so instead of counting nothing."""
    orphan = _orphan(built, b"left over", 7200)

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    outcome = built.run("gc", "--older-than", "0")

    assert (1, True) == (outcome.status, orphan in built.blobs())
    assert "Read-only file system" in outcome.stderr
    assert "hint:" in outcome.stderr


def test_what_is_being_uploaded_stays(built: Space) -> None:
    """gc takes no file from whoever writes it, and takes it when nobody does any more."""
    blobs = Store(built.store).blobs
    with blobs.stage_arriving(digest_of(b"whole")) as arriving:
        arriving.append(b"who")
        outcome = built.run("gc", "--older-than", "0")

        assert (0, True) == (outcome.status, arriving.path.exists()), outcome.stderr

    outcome = built.run("gc", "--older-than", "0")

    assert f"deleted {arriving.path.name}" in outcome.stdout
    assert not blobs.staging.exists()


def test_explanation_quotes_the_eviction(built: Space) -> None:
    """What gc deleted and a build needs again is explained by when and by whom it was evicted."""
    manifest = next(path for path in (built.store / "manifests").rglob("latest") if path.parent.name == "a")
    text = manifest.read_bytes()
    manifest.unlink()
    built.run("gc", "--older-than", "0")
    manifest.write_bytes(text)

    explained = built.run("explain", "a").stdout

    assert "evicted by modelbuild gc, " in explained
    assert 0 == built.run("build", "recipe.yaml").status
    assert "evicted" not in built.run("explain", "a").stdout


def test_gc_frees_the_disk_although_the_cache_takes_no_notes(built: Space) -> None:
    """Most of all on a full disk, where the state file cannot even be opened."""
    orphan = built.write(f"models/blobs/sha256-{'0' * 64}", "nothing needs it")
    built.write("broken", "no directory")

    outcome = built.run("gc", "--older-than", "0", "--cache", "broken")

    assert (0, "") == (outcome.status, outcome.stderr)
    assert not orphan.exists()


def test_explanation_quotes_who_removed_the_model(built: Space) -> None:
    """What went with a model that was removed is not just missing; and a cache that takes no notes hinders nothing."""
    assert 0 == built.run("rm", "a").status
    explained = built.run("explain", "a").stdout
    built.build()
    built.write("broken", "no directory")
    removed = built.run("rm", "a", "--cache", "broken")

    assert "is missing from the store: evicted by modelbuild rm, " in explained
    assert "a:latest is not in the store" in explained
    assert (0, "") == (removed.status, removed.stderr)


def test_gc_refuses_while_a_build_holds_the_store(built: Space) -> None:
    """Blobs that a build is about to name are safe: gc says who is in the way and deletes nothing."""
    from modelbuild.store.store import Store

    orphan = _orphan(built, b"left over", 7200)
    with Store(built.store).hold():
        outcome = built.run("gc", "--older-than", "0")

    assert (1, True) == (outcome.status, orphan in built.blobs())
    assert "a build is using the store" in outcome.stderr


@pytest.mark.parametrize(
    ("limits", "free_bytes", "expected"),
    [
        (GarbageLimits(min_age_s=10), 0, ["old", "middle"]),
        (GarbageLimits(min_age_s=0, max_bytes=250), 0, ["old"]),
        (GarbageLimits(min_age_s=0, max_bytes=300), 0, []),
        (GarbageLimits(min_age_s=0, keep_free_bytes=150), 0, ["old", "middle"]),
        (GarbageLimits(min_age_s=0, keep_free_bytes=150), 150, []),
    ],
)
def test_limits_stop_the_eviction_oldest_first(limits: GarbageLimits, free_bytes: int, expected: list[str]) -> None:
    """Only as much goes as the limits ask for, and what is old goes first."""
    candidates = [Candidate(Path(name), 100, age) for name, age in (("young", 1), ("old", 99), ("middle", 50))]

    assert expected == [item.path.name for item in choose_garbage(candidates, limits, free_bytes)]


def test_du_adds_up(built: Space) -> None:
    """`du` counts shared blobs once."""
    text = built.run("du").stdout
    total = sum((built.store / "blobs" / name).stat().st_size for name in built.blobs())

    assert f"{'models':<30}{f'{total} B' if total < 1024 else f'{total / 1024:.1f} KiB':>12}" in text
