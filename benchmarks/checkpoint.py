"""A synthetic BF16 Llama checkpoint to BF16, Q4_K_M and five types at once: CPU time, peak memory, extra disk.

Side by side in one run: `cp` + `openssl dgst -sha256` for BF16; for Q4_K_M a plain BF16 rewrite plus llama.cpp's own
packing of the same weights (`ggml_quantize_chunk` of the xllamacpp wheel), which stand in for the reference tools.
usage: checkpoint.py [GIB]
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "examples" / "tinydocs" / "TinyDocs-4M"
HIDDEN, FFN, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 16, 4, 4096


def layer_shapes(index: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one block."""
    name = f"model.layers.{index}."
    narrow = HIDDEN * KV_HEADS // HEADS
    return {
        name + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        name + "self_attn.k_proj.weight": (narrow, HIDDEN),
        name + "self_attn.v_proj.weight": (narrow, HIDDEN),
        name + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        name + "mlp.gate_proj.weight": (FFN, HIDDEN),
        name + "mlp.up_proj.weight": (FFN, HIDDEN),
        name + "mlp.down_proj.weight": (HIDDEN, FFN),
        name + "input_layernorm.weight": (HIDDEN,),
        name + "post_attention_layernorm.weight": (HIDDEN,),
    }


def make_checkpoint(directory: Path, gib: float) -> int:
    """Write the checkpoint; returns the number of weights."""
    per_layer = sum(int(np.prod(shape)) for shape in layer_shapes(0).values())
    layers = max(1, round(gib * 2**30 / 2 / per_layer))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for index in range(layers):
        shapes |= layer_shapes(index)
    shapes |= {"model.norm.weight": (HIDDEN,)}
    directory.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(TOKENIZER / name, directory)
    config = json.loads((TOKENIZER / "config.json").read_text()) | {
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS, "num_hidden_layers": layers,
        "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN // HEADS, "vocab_size": VOCABULARY,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    noise = np.random.default_rng(1)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            values = noise.standard_normal(int(np.prod(shape)), dtype=np.float32) * np.float32(0.02)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return offset // 2


def measure(command: list[str], env: dict[str, str] | None = None) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and peak memory in MiB of a command."""
    started_s = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - started_s, usage.ru_maxrss // 1024


def oracle_q4_k_cpu_s(weights: int) -> float:
    """CPU seconds llama.cpp needs to pack that many weights to Q4_K, extrapolated from two million."""
    import xllamacpp

    directory = Path(xllamacpp.__file__).parent
    places = [
        *directory.rglob("*ggml-base*.so*"),
        *directory.rglob("*.so"),
        *directory.parent.rglob("xllamacpp*/*.so*"),
    ]
    for path in places:
        library = ctypes.CDLL(str(path))
        if hasattr(library, "ggml_quantize_chunk"):
            break
    else:
        raise SystemExit("the wheel exports no ggml_quantize_chunk")
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    columns, rows = 2048, 1024
    values = np.random.default_rng(2).standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
    out = np.empty(rows * columns // 256 * 144, np.uint8)
    best = float("inf")
    for _ in range(2):
        started_s = time.thread_time()
        library.ggml_quantize_chunk(
            12, values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(columns), None,
        )  # fmt: skip
        best = min(best, time.thread_time() - started_s)
    return best * weights / (rows * columns)


def main() -> None:
    """Make the checkpoint and print the table."""
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        weights = make_checkpoint(place / "checkpoint", gib)
        source = place / "checkpoint" / "model.safetensors"
        print(f"{weights / 1e6:.0f} M weights, {source.stat().st_size / 2**30:.2f} GiB BF16, {os.cpu_count()} cores")

        def build(label: str, types: list[str], *options: str) -> tuple[float, float, int]:
            models = "".join(
                f"  m-{item}: {{from: ./checkpoint{f', quantize: {item}' if item else ''}}}\n" for item in types
            )
            (place / "recipe.yaml").write_text("models:\n" + models)
            env = os.environ | {
                "MODELBUILD_STORE": str(place / "models"), "MODELBUILD_CACHE": str(place / "cache"),
                "PYTHONPATH": str(ROOT),
            }  # fmt: skip
            command = [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build", str(place / "recipe.yaml")]
            cpu_s, wall_s, peak_mib = measure([*command, *options], env)
            print(f"{label:<44}{cpu_s:>8.2f} CPU s{wall_s:>8.2f} s{peak_mib:>7} MiB")
            return cpu_s, wall_s, peak_mib

        def forget() -> None:
            shutil.rmtree(place / "models", ignore_errors=True)
            shutil.rmtree(place / "cache", ignore_errors=True)

        copy = measure(["cp", str(source), str(place / "copy")])
        digest = measure(["openssl", "dgst", "-sha256", str(source)])
        (place / "copy").unlink()
        reference_s = copy[0] + digest[0]
        print(f"{'cp + openssl dgst -sha256':<44}{reference_s:>8.2f} CPU s{copy[1] + digest[1]:>8.2f} s")
        plain = build("checkpoint → BF16", ["BF16"])
        print(
            f"{'':<44}speed {reference_s / plain[0]:.2f} × cp + openssl (CPU), "
            f"{(copy[1] + digest[1]) / plain[1]:.2f} × (wall)"
        )
        forget()
        oracle_s = plain[0] + oracle_q4_k_cpu_s(weights)
        small = build("checkpoint → Q4_K_M", ["Q4_K_M"])
        print(f"{'':<44}{oracle_s / small[0]:.1f} × less CPU than rewrite + llama.cpp packing ({oracle_s:.1f} s)")
        size = max(path.stat().st_size for path in (place / "models" / "blobs").iterdir())
        with source.open("r+b") as file:
            file.seek(-4096, os.SEEK_END)
            data = file.read()
            file.seek(-4096, os.SEEK_END)
            file.write(bytes(byte ^ 0x80 if index % 2 else byte for index, byte in enumerate(data)))
        again = build("one tensor changed", ["Q4_K_M"])
        ideal = digest[0] + copy[0] * size / source.stat().st_size
        print(f"{'':<44}{again[0] / ideal:.2f} × (hash source + copy result)")
        forget()
        alone = 0.0
        types = ["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "Q3_K_M"]
        for item in types:
            alone += build(f"  {item} alone", [item])[0]
            forget()
        together = build("five types in one build", types)
        print(f"{'':<44}{together[0] / alone:.2f} × the sum of separate builds")
        print(f"peak of children {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
