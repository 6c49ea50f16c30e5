"""Crafted GGUF files: each breaks one rule of the format and must be refused with that rule's code, at once."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf import cursor
from modelbuild.formats.gguf.reader import open_gguf
from tests.unit.formats import gguf_bytes as g
from tests.unit.formats.crafted import LFS_POINTER, at_little_cost, verdict
from tests.unit.formats.gguf_bytes import array, entry, one, one_key, pad, start, tensor, text, u32, u64
from tests.unit.formats.memory_file import memory_file

TWO = start(2, 0)
F32X8 = 8


def two(offset_a: int, offset_b: int) -> bytes:
    a, b = tensor(b"a", [8], g.T_F32, offset_a), tensor(b"b", [8], g.T_F32, offset_b)
    return pad(TWO + a + b) + bytes(128)


def aligned(type_: int, data: bytes, alignment: int = 32) -> bytes:
    return pad(start(0, 1) + entry(b"general.alignment", type_, data), alignment)


_HUGE_I8 = 0x7FFFFFFFFFFFFFC0
_NESTED = array(g.ARR, 1, array(g.U8, 1, b"\0"))

#: Case name to the file's bytes and the code it must give; "" is accepted.
CASES: dict[str, tuple[bytes, str]] = {
    "h01": (b"", "TRUNCATED"),
    "h02": (b"GGUF", "TRUNCATED"),
    "h03": (start(0, 0, magic=b"FUGG"), "MAGIC"),
    "h04": (start(0, 0, 0), "VERSION"),
    "h05": (start(0, 0, 1), "VERSION"),
    "h06": (start(0, 0, 4), "VERSION"),
    "h07": (start(0, 0, 2), ""),
    "h08": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "ENDIAN"),
    "h09": (start(2**64 - 1, 0), "COUNT"),
    "h10": (start(0, 2**64 - 1), "COUNT"),
    "h11": (start(2**63, 0), "COUNT"),
    "h12": (start(0, 2**63), "COUNT"),
    "h13": (start(0, 65000) + bytes(64), "COUNT"),
    "h14": (start(0, 0), ""),
    "h15": (start(0, 0)[:20], "TRUNCATED"),
    "h16": (LFS_POINTER, "MAGIC"),
    "k01": (one_key(u64(2**64 - 1), 32), "STRING"),
    "k02": (one_key(u64(2**63), 32), "STRING"),
    "k03": (one_key(entry(b"", g.U8, b"\0"), 32), "KEY"),
    "k04": (one_key(entry(b"\xff\xfe", g.U8, b"\0")), "KEY"),
    "k05": (one_key(entry(b"k" * 65_536, g.U8, b"\0")), "KEY"),
    "k06": (start(0, 2) + entry(b"a.b", g.U8, b"\1") * 2, "DUPLICATE"),
    "k07": (one_key(entry(b"a", 13, b""), 32), "TYPE"),
    "k08": (one_key(entry(b"a", 2**32 - 1, b""), 32), "TYPE"),
    "k09": (one_key(entry(b"a", g.STR, u64(2**63))), "STRING"),
    "k10": (one_key(entry(b"a", g.STR, u64(100)), 32), "TRUNCATED"),
    "k11": (one_key(entry(b"a", g.STR, u64(17 << 20)), 32), "STRING"),
    "k12": (one_key(entry(b"a", g.ARR, array(g.U8, 2**63))), "ARRAY"),
    "k13": (one_key(entry(b"a", g.ARR, array(g.F64, 2**61))), "ARRAY"),
    "k14": (one_key(entry(b"a", g.ARR, array(g.U32, 1000)), 64), "TRUNCATED"),
    "k15": (one_key(entry(b"a", g.ARR, _NESTED)), "NESTED"),
    "k16": (one_key(entry(b"a", g.ARR, array(g.ARR, 1) * 2000)), "NESTED"),
    "k17": (one_key(entry(b"a", g.ARR, array(13, 1)), 32), "TYPE"),
    "k18": (one_key(entry(b"a", g.ARR, array(g.U32, 0))), ""),
    "k19": (one_key(entry(b"a", g.ARR, array(g.STR, 2**20)), 64), "TRUNCATED"),
    "k20": (one_key(entry(b"a", g.ARR, array(g.STR, 1, u64(2**64 - 1)))), "STRING"),
    "k21": (one_key(entry(b"a", g.STR, text(b""))), ""),
    "k22": (one_key(entry(b"a", g.STR, text(b"\xff\xfe"))), ""),
    "k23": (one_key(entry(b"a", g.U64, bytes(3))), "TRUNCATED"),
    "k24": (one_key(entry(b"a", g.BOOL, b"\2")), ""),
    "k25": (one_key(entry(b"a\0b", g.U8, b"\0")), "KEY"),
    "a01": (aligned(g.U32, u32(0)), "ALIGNMENT"),
    "a02": (aligned(g.U32, u32(13)), "ALIGNMENT"),
    "a03": (aligned(g.I32, u32(32)), "ALIGNMENT"),
    "a04": (aligned(g.U32, u32(2**31)), "ALIGNMENT"),
    "a05": (aligned(g.U32, u32(1), 1), ""),
    "a06": (aligned(g.U32, u32(64), 64), ""),
    "a07": (aligned(g.STR, text(b"32")), "ALIGNMENT"),
    "a08": (
        pad(
            start(2, 1)
            + entry(b"general.alignment", g.U32, u32(64))
            + tensor(b"a", [8], g.T_F32, 0)
            + tensor(b"b", [8], g.T_F32, 32),
            64,
        )
        + bytes(128),
        "OFFSET",
    ),
    "t01": (pad(start(1, 0) + tensor(b"n" * 64, [8], g.T_F32, 0)) + bytes(64), "NAME"),
    "t02": (pad(start(1, 0) + tensor(b"n" * 63, [8], g.T_F32, 0)) + bytes(64), ""),
    "t03": (start(1, 0) + u64(2**63) + bytes(64), "NAME"),
    "t04": (pad(start(1, 0) + tensor(b"", [8], g.T_F32, 0)) + bytes(64), "NAME"),
    "t05": (pad(start(1, 0) + tensor(b"a\0b", [8], g.T_F32, 0)) + bytes(64), "NAME"),
    "t06": (pad(start(1, 0) + tensor(b"\xff", [8], g.T_F32, 0)) + bytes(64), "NAME"),
    "t07": (pad(TWO + tensor(b"t", [8], g.T_F32, 0) + tensor(b"t", [8], g.T_F32, 32)) + bytes(64), "DUPLICATE"),
    "t08": (pad(start(1, 0) + tensor(b"../../etc/passwd", [8], g.T_F32, 0)) + bytes(64), ""),
    "t09": (one([1] * 5, g.T_F32, 0), "DIMS"),
    "t10": (one([], g.T_F32, 0), ""),
    "t11": (start(1, 0) + text(b"t") + u32(1_000_000) + bytes(64), "DIMS"),
    "t12": (one([2**64 - 1], g.T_F32, 0), "SHAPE"),
    "t13": (one([8, 0], g.T_F32, 0), ""),
    "t14": (one([2**32, 2**32], g.T_F32, 0), "SHAPE"),
    "t15": (one([4 * (2**31 - 1)] * 2, g.T_F32, 0), "SHAPE"),
    "t16": (one([2**31, 2**30], g.T_I64, 0), "SHAPE"),
    "t17": (one([4, 2**30 - 1, 2**30 + 1], g.T_F32, 0), "SHAPE"),
    "t18": (one([32], 4, 0), "TYPE"),
    "t19": (one([32], 31, 0), "TYPE"),
    "t20": (one([32], 1000, 0), "TYPE"),
    "t21": (one([32], 2**32 - 1, 0), "TYPE"),
    "t22": (one([48], g.T_Q4_0, 0), "SHAPE"),
    "t23": (one([128], g.T_Q4_K, 0), "SHAPE"),
    "t24": ((start(1, 0) + tensor(b"t", [8], g.T_F32, 0))[:-6], "TRUNCATED"),
    "t25": (TWO + tensor(b"t", [8], g.T_F32, 0), "COUNT"),
    "t26": (one([256], g.T_Q8_K, 0, 512), ""),
    "t27": (one([2**60 + 256], g.T_Q4_K, 0, 160), "DATA"),
    "t28": (one([128], g.T_Q1_0, 0), ""),
    "t29": (one([64], g.T_Q2_0, 0), ""),
    "t30": (one([32], 43, 0), "TYPE"),
    "o01": (one([8], g.T_F32, 2**64 - 1), "OFFSET"),
    "o02": (one([8], g.T_F32, 2**64 - 32), "OFFSET"),
    "o03": (one([8], g.T_F32, 4), "OFFSET"),
    "o04": (two(0, 0), "OFFSET"),
    "o05": (two(0, 64), "OFFSET"),
    "o06": (two(32, 0), "OFFSET"),
    "o07": (one([2**20], g.T_F32, 0), "DATA"),
    "o08": (one([F32X8], g.T_F32, 0, 31), "DATA"),
    "o09": (one([9], g.T_F32, 0, 36), ""),
    "o10": (
        pad(TWO + tensor(b"a", [_HUGE_I8], g.T_I8, 0) + tensor(b"b", [_HUGE_I8], g.T_I8, _HUGE_I8)) + bytes(64),
        "DATA",
    ),
    "o11": (one([8], g.T_F32, 32), "OFFSET"),
    "o12": (start(1, 0) + tensor(b"t", [8], g.T_F32, 0), "DATA"),
    "o13": (one([8], g.T_F32, 0, 32) + bytes(1024), ""),
    "o14": (pad(TWO + tensor(b"a", [8], g.T_F32, 0) + tensor(b"b", [8, 0], g.T_F32, 32)) + bytes(32), ""),
}

#: Peak of Python's allocations while a crafted file of some bytes is read: the first read and small objects.
MEMORY_LIMIT_BYTES = 4 << 20


@pytest.mark.parametrize("case", CASES)
def test_crafted_file_gets_its_code(case: str, tmp_path: Path) -> None:
    """Each broken file is refused with the code of the rule it breaks, in bounded time and memory."""
    data, code = CASES[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)

    assert code == at_little_cost(lambda: verdict(open_gguf, path), MEMORY_LIMIT_BYTES)


def test_lfs_pointer_is_named(tmp_path: Path) -> None:
    """h16: whoever cloned without LFS is told so, and what to type."""
    path = tmp_path / "m.gguf"
    path.write_bytes(LFS_POINTER)

    with pytest.raises(InputError, match="Git LFS pointer") as caught:
        open_gguf(path)

    assert "git lfs pull" in caught.value.hint


def test_trailing_bytes_are_counted(tmp_path: Path) -> None:
    """o13: bytes that belong to no tensor are accepted and reported."""
    path = tmp_path / "m.gguf"
    path.write_bytes(CASES["o13"][0])

    assert 1024 == open_gguf(path).trailing_bytes


def test_boolean_byte_other_than_one_is_true(tmp_path: Path) -> None:
    """k24: any byte but 0 is true."""
    path = tmp_path / "m.gguf"
    path.write_bytes(CASES["k24"][0])

    assert open_gguf(path).kv.boolean("a") is True


def test_incomplete_copy_is_called_so(tmp_path: Path) -> None:
    """Whoever has half a file is told to get it again."""
    for case in ("h15", "k10", "o07"):
        path = tmp_path / f"{case}.gguf"
        path.write_bytes(CASES[case][0])
        with pytest.raises(InputError) as caught:
            open_gguf(path)
        assert "get the file again" in caught.value.hint


def test_zip_is_named(tmp_path: Path) -> None:
    """A ZIP archive under a GGUF name is called what it is."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\3\4" + bytes(60))

    with pytest.raises(InputError, match="ZIP archive") as caught:
        open_gguf(path)

    assert caught.value.code == "MAGIC"


def test_every_truncation_is_refused() -> None:
    """A valid file cut at any byte before its last data byte is an InputError, never anything else."""
    info = tensor(b"a", [8], g.T_F32, 0) + tensor(b"b", [32], g.T_Q4_0, 32)
    keys = entry(b"k", g.ARR, array(g.STR, 2, text(b"x") + text(b"yz"))) + entry(b"s", g.STR, text(b"text"))
    data = pad(start(2, 2) + keys + info) + bytes(32 + 18)

    with memory_file() as file:
        for length in range(len(data)):
            file.write(data[:length])
            assert verdict(open_gguf, file.path) in {"TRUNCATED", "COUNT", "DATA", "STRING"}, length
        file.write(data)
        assert verdict(open_gguf, file.path) == ""


def test_strings_across_read_borders(tmp_path: Path) -> None:
    """Arrays longer than one read are walked in full, whatever string a read ends in."""
    texts = [b"x" * (length % 3000) for length in range(2000)] + [b"y" * (3 << 20), b"z"]
    path = tmp_path / "m.gguf"
    path.write_bytes(one_key(entry(b"a", g.ARR, array(g.STR, len(texts), b"".join(map(text, texts))))))

    assert texts == open_gguf(path).kv["a"].strings()


def test_long_string_inside_an_array(tmp_path: Path) -> None:
    """The limit of strings holds inside arrays too, also when the file really is that long."""
    texts = [b"a", b"x" * ((16 << 20) + 1), b"b"]
    path = tmp_path / "m.gguf"
    path.write_bytes(one_key(entry(b"a", g.ARR, array(g.STR, len(texts), b"".join(map(text, texts))))))

    assert verdict(open_gguf, path) == "STRING"


def test_header_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header beyond the limit is refused before it is in memory."""
    monkeypatch.setattr(cursor, "HEADER_LIMIT_BYTES", 1 << 20)
    path = tmp_path / "m.gguf"
    numbers = entry(b"a", g.ARR, array(g.U32, 200_000, bytes(800_000)))
    path.write_bytes(start(0, 2) + numbers + entry(b"b", g.ARR, array(g.U8, 400_000, bytes(400_000))))

    with pytest.raises(InputError) as caught:
        open_gguf(path)

    assert ("HEADER", "b") == (caught.value.code, caught.value.key)
