"""All comparisons, a table of each, and docs/benchmarks.md.

python -m benchmarks --quick        # small sizes, a few minutes
python -m benchmarks --write        # also writes docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import measure, page
from benchmarks.measure import Row, Skipped

ROOT = Path(__file__).parents[1]
Comparison = Callable[[bool], list[Row | Skipped]]


def no_op(quick: bool) -> Iterator[Row | Skipped]:
    """Nothing to do, beside doit, DVC, Snakemake and Ninja where they are installed."""
    from benchmarks import noop

    own = noop.Tool(
        "modelbuild", noop.write_recipe, [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build"], 5
    )
    bare = measure.least(measure.run([sys.executable, "-c", "pass"]) for _ in range(5)).cpu_s * 1000
    peers = {
        "doit": (noop.write_dodo, (), (), 3, 1.0),
        "dvc": (noop.write_dvc, ("repro", "--quiet"), noop.DVC_FIRST, 1, 1 / 6),
        "snakemake": (noop.write_snakefile, ("--quiet", "--cores", "1"), noop.SNAKEMAKE_FIRST, 2, 1 / 6),
        "ninja": (noop.write_ninja, (), (), 3, 0.0),
    }
    for count in (10,) if quick else (10, 1000):
        ours = noop.measure(own, count)
        yield Row(f"no-op, {count:,} models", ours, "python -c pass", bare, "CPU ms")
        for name, (write, arguments, first, rounds, limit) in peers.items():
            program = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            if program is None:
                yield Skipped(f"no-op, {count:,} models, beside {name}", f"pip install {name}")
                continue
            theirs = noop.measure(noop.Tool(name, write, [program, *arguments], rounds, first), count)
            yield Row(f"no-op, {count:,} models", ours, name, theirs, "CPU ms", f"<= {limit:.2g}" if limit else "")


def weights(quick: bool) -> Iterator[Row | Skipped]:
    """A checkpoint to BF16 beside cp and openssl, to Q4_K_M beside llama.cpp's packing."""
    from benchmarks import checkpoint

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        count = checkpoint.make_checkpoint(place / "checkpoint", 0.125 if quick else 0.5)
        source = place / "checkpoint" / "model.safetensors"
        env = os.environ | {
            "MODELBUILD_STORE": str(place / "models"), "MODELBUILD_CACHE": str(place / "cache"),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

        def build(type_: str, directory: str = "checkpoint") -> measure.Cost:
            (place / "recipe.yaml").write_text(f"models:\n  m-{type_}: {{from: ./{directory}, quantize: {type_}}}\n")
            command = [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build", place / "recipe.yaml"]
            return measure.run(command, env=env)

        shutil.copytree(checkpoint.TOKENIZER, place / "small")
        build("F16", "small")  # unmeasured: Python compiles what it has not yet
        start = measure.least(build(type_, "small") for type_ in ("BF16", "Q8_0", "Q4_K_M"))
        bare = measure.least(measure.run([sys.executable, "-c", "import numpy"]) for _ in range(3))
        yield Row("checkpoint of 4 M weights: the start", start.cpu_s, "import numpy", bare.cpu_s)
        digest = measure.run(["openssl", "dgst", "-sha256", source]).cpu_s
        copy = measure.run(["cp", source, place / "copy"]).cpu_s
        plain = build("BF16").cpu_s
        size = f"{count / 1e6:.0f} M weights"
        yield Row(f"checkpoint to BF16, {size}", plain, "cp + openssl", copy + digest)
        if importlib.util.find_spec("xllamacpp") is None:
            yield Skipped(f"checkpoint to Q4_K_M, {size}, beside llama.cpp", "pip install xllamacpp")
            return
        theirs = plain + checkpoint.oracle_q4_k_cpu_s(count)
        small = build("Q4_K_M")
        yield Row(f"checkpoint to Q4_K_M, {size}", small.cpu_s, "rewrite + llama.cpp", theirs, "CPU s", "<= 0.14")
        yield Row(f"peak memory of that, {size}", small.peak_mib, "budget", 400, "MiB", "<= 1")


def fan_out(quick: bool) -> Iterator[Row | Skipped]:
    """Five types from one read, the disk that a build needs, and one tensor changed."""
    from benchmarks import fan_out

    yield from fan_out.rows(quick)


def packing(quick: bool) -> Iterator[Row | Skipped]:
    """Weights packed per CPU second and core, beside llama.cpp; more is better."""
    if importlib.util.find_spec("xllamacpp") is None:
        yield Skipped("packing beside llama.cpp", "pip install xllamacpp")
        return
    from benchmarks import kernels

    names = ("Q4_K", "Q8_0") if quick else ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "IQ4_NL")
    block = kernels.weights(64 if quick else 128)
    for name in names:
        jobs = kernels.competitors(kernels.GgmlType[name], None)
        jobs.pop("numpy")
        rates, _ = kernels.measure(jobs, block)
        theirs = rates.pop("llama.cpp")
        if not rates:
            yield Skipped(f"packing {name}", "a C compiler, then install again: the kernels are not built")
            continue
        budget = f">= {kernels.BUDGETS[name]}"
        yield Row(f"packing {name}, one core", max(rates.values()), "llama.cpp", theirs, "M weights / CPU s", budget)


def header(quick: bool) -> Iterator[Row | Skipped]:
    """Opening a GGUF header with a large vocabulary, beside the gguf package."""
    if importlib.util.find_spec("gguf") is None:
        yield Skipped("opening a GGUF header beside gguf", "pip install gguf")
        return
    from benchmarks import gguf_header

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vocabulary.gguf"
        gguf_header.make_file(path)
        ours = gguf_header.measure(gguf_header.OURS, path, 3 if quick else gguf_header.ROUNDS)
        theirs = gguf_header.measure(gguf_header.THEIRS, path, 1)
    yield Row("open a GGUF header, large vocabulary", ours["cpu_s"], "gguf.GGUFReader", theirs["cpu_s"])
    yield Row("memory of that", ours["mib"], "gguf.GGUFReader", theirs["mib"], "MiB")


def watching(quick: bool) -> Iterator[Row | Skipped]:
    """The edit loop against its budgets."""
    from benchmarks import watch

    yield from watch.rows(quick)


def files(quick: bool) -> Iterator[Row | Skipped]:
    """Hashing, taking over a GGUF, and editing the prompt of a large model."""
    from benchmarks import store

    yield from store.rows(quick)


def uploads(quick: bool) -> Iterator[Row | Skipped]:
    """A blob sent to `modelbuild serve`."""
    from benchmarks import upload

    yield from upload.rows(quick)


COMPARISONS = {
    "noop": no_op, "files": files, "weights": weights, "fan-out": fan_out, "kernels": packing, "header": header,
    "upload": uploads, "watch": watching,
}  # fmt: skip


def main() -> None:
    """Run everything, or what is named, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only some of {', '.join(COMPARISONS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    chosen = parser.parse_args()
    print(measure.describe_machine())
    tables: dict[str, str] = {}
    for name in chosen.names or COMPARISONS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows: list[Row | Skipped] = []
        try:
            rows += COMPARISONS[name](chosen.quick)
        except (RuntimeError, OSError, ImportError) as error:
            rows.append(Skipped(name, f"{type(error).__name__}: {error}".splitlines()[0]))
        tables[name] = measure.as_table(rows)
        print(f"\n{tables[name]}", flush=True)
    if chosen.write:
        page.write(tables, quick=chosen.quick)


if __name__ == "__main__":
    main()
