"""What a crowd costs `modelbuild serve`: connections opened at once and held, how they are answered, peak memory.

    python -m benchmarks.connections [--count 10000]

Prints a row for the server at rest and one for the crowd. Needs a limit of open files above the count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path


def main() -> None:
    from tests.crowd import most_connections, open_crowd, peak_mib
    from tests.serving import start, stop
    from tests.space import Space

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    count = min(parser.parse_args().count, most_connections())
    with tempfile.TemporaryDirectory() as scratch:
        served = start(Space(Path(scratch)))
        try:
            served.client.ask("GET", "/api/version")
            print(f"at rest: {peak_mib(served.process.pid):.0f} MiB")
            started_s = time.perf_counter()
            answered = open_crowd(served.client.port, count)
            found = ", ".join(f"{number} {status}" for status, number in sorted(answered.items()))
            peak = peak_mib(served.process.pid)
            print(f"{count} connections: {found}; {peak:.0f} MiB; {time.perf_counter() - started_s:.1f} s")
        finally:
            stop(served)


if __name__ == "__main__":
    main()
