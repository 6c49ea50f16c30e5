"""Opening and reading files of strangers: no waiting, no partial reads, one kind of error."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.files import InputFile, does_exist, is_directory, is_regular, open_input, read_buffer
from modelbuild.formats.hashing import digest_of_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    return path


def test_reads_exactly(file: Path) -> None:
    """As many bytes as asked for, from where they were asked for."""
    with open_input(file) as source:
        assert bytes(range(90, 100)) == source.read_at(90, 10)
        assert b"" == source.read_at(100, 0)


@pytest.mark.parametrize(("offset", "size"), [(90, 11), (101, 0), (0, 1 << 62), (-1, 2), (5, -1)])
def test_reading_past_the_end_allocates_nothing(file: Path, offset: int, size: int) -> None:
    """A claim beyond the file's size is refused before memory is taken."""
    with open_input(file) as source, pytest.raises(InputError) as caught:
        source.read_at(offset, size)

    assert "TRUNCATED" == caught.value.code


def test_short_reads_are_completed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system call that gives fewer bytes than asked for is repeated."""
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 7), offset))
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:7]], offset))
    buffer = bytearray(50)

    with open_input(file) as source:
        assert bytes(range(100)) == source.read_at(0, 100)
        source.read_into(20, memoryview(buffer))

    assert bytes(range(20, 70)) == bytes(buffer)


@pytest.mark.parametrize(
    "read", [lambda source: source.read_at(0, 100), lambda source: source.read_into(0, memoryview(bytearray(100)))]
)
def test_file_that_shrinks_is_truncated(file: Path, read: Callable[[InputFile], object]) -> None:
    """A file cut after it was opened gives TRUNCATED, not fewer bytes."""
    with open_input(file) as source:
        os.truncate(file, 10)
        with pytest.raises(InputError) as caught:
            read(source)

    assert ("TRUNCATED", 10) == (caught.value.code, caught.value.offset)


@pytest.mark.parametrize("call", ["pread", "preadv"])
def test_errors_of_the_disk_are_input_errors(file: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A failing disk ends in an error with file and offset, not in a traceback."""

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with open_input(file) as source, pytest.raises(InputError, match="input/output error") as caught:
        source.read_at(3, 1) if call == "pread" else source.read_into(3, memoryview(bytearray(1)))

    assert ("PATH", file, 3) == (caught.value.code, caught.value.path, caught.value.offset)


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer would block an ordinary open forever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(InputError, match="a pipe") as caught:
        open_input(path)

    assert "NOTREGULAR" == caught.value.code


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket is no file either."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError) as caught:
            open_input(Path("socket"))

    assert "NOTREGULAR" == caught.value.code


@pytest.mark.parametrize(("path", "what"), [("/dev/zero", "a device"), ("/", "a directory")])
def test_other_kinds_are_refused(path: str, what: str) -> None:
    """Devices and directories are named as what they are."""
    with pytest.raises(InputError, match=what) as caught:
        open_input(Path(path))

    assert "NOTREGULAR" == caught.value.code


@pytest.mark.parametrize("name", ["absent", "a\0b", "n" * 300])
def test_names_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    """Missing and impossible names are PATH errors."""
    with pytest.raises(InputError) as caught:
        open_input(tmp_path / name)

    assert "PATH" == caught.value.code


def test_closing_twice_is_safe(file: Path) -> None:
    """The descriptor is closed once; a second close cannot hit somebody else's descriptor."""
    source = open_input(file)
    source.close()
    source.close()

    assert -1 == source.fd


def test_digest_is_that_of_sha256(file: Path) -> None:
    """The digest and the copy made on the way agree with the file's bytes."""
    parts: list[bytes] = []
    done: list[int] = []
    with open_input(file) as source:
        digest = digest_of_file(source, done.append, lambda chunk: parts.append(bytes(chunk)))

    assert "sha256:" + hashlib.sha256(bytes(range(100))).hexdigest() == digest
    assert (bytes(range(100)), [100]) == (b"".join(parts), done)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b"], ids=["long name", "long path", "NUL"])
def test_impossible_names_name_nothing(tmp_path: Path, name: str) -> None:
    """Whoever asks what is there gets an answer, not an exception."""
    path = tmp_path / name

    assert (False, False, False) == (is_directory(path), is_regular(path), does_exist(path))
    with pytest.raises(InputError) as caught:
        open_input(path)
    assert "PATH" == caught.value.code


@pytest.mark.parametrize("size_bytes", [0, 1, 65535, 65536, 1 << 20])
def test_read_buffers_are_writable_and_large_ones_begin_at_a_page(size_bytes: int) -> None:
    """Whatever the size; some processors copy to pages at twice the speed."""
    import ctypes
    import mmap

    buffer = read_buffer(size_bytes)

    assert (size_bytes, False, bytes(size_bytes)) == (len(buffer), buffer.readonly, bytes(buffer))
    if size_bytes >= 65536:
        assert 0 == ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % mmap.PAGESIZE
