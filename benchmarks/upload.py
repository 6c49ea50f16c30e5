"""What receiving a blob costs, per HTTP server: CPU seconds per GiB, peak memory, and how long other requests wait.

    python -m benchmarks.upload [--mib 512] [--only NAME]...

Every candidate hashes the body and writes it to a file, through a minimal application; `modelbuild` is the real
`modelbuild serve`. It gets the file twice: once alone, and once while other requests are measured. The yardstick is
`cat FILE | openssl dgst -sha256` over the same bytes. Only servers that are installed take part. All traffic is on
loopback.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import importlib.util
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Row, Skipped

ROOT = Path(__file__).parents[1]

CANDIDATES = (
    "granian",
    "uvicorn-httptools",
    "uvicorn-httptools-asyncio",
    "uvicorn-h11",
    "hypercorn",
    "aiohttp",
    "cheroot",
    "modelbuild",
)


def rows(quick: bool) -> list[Row | Skipped]:
    """The real server beside `cat | openssl`; memory beside an upload of a sixteenth of the size."""
    if not all(importlib.util.find_spec(name) for name in ("modelbuild", "aiohttp")):
        return [Skipped("upload of a blob", "pip install 'modelbuild[server]'")]
    mib = 256 if quick else 2048
    with tempfile.TemporaryDirectory() as scratch:
        large, small = write_file(Path(scratch, "large"), mib), write_file(Path(scratch, "small"), mib // 16)
        yardstick_s = min(measure_yardstick(Path(scratch, "large")) for _ in range(3))
        costs = [measure_in(scratch, f"large-{turn}", "large", large) for turn in range(3)]
        base = measure_in(scratch, "small-0", "small", small)
    if not all(cost.digest_ok for cost in (*costs, base)):
        raise RuntimeError("the server took an upload for another one")
    best = min(costs, key=lambda cost: cost.cpu_s)
    work = f"upload of a blob, {mib} MiB"
    return [
        Row(work, mib / best.cpu_s, "cat + openssl dgst", mib / yardstick_s, "MiB / CPU s", ">= 0.6"),
        Row("memory of that", best.peak_mib, f"upload of {mib // 16} MiB", base.peak_mib, "MiB", "<= 1.1"),
    ]


def measure_in(scratch: str, place: str, name: str, digest: str) -> Cost:
    """One upload to a server with a store of its own, which is removed afterwards."""
    directory = Path(scratch, place)
    directory.mkdir()
    try:
        return measure("modelbuild", Path(scratch, name), digest, directory)
    finally:
        shutil.rmtree(directory)


def write_file(path: Path, mib: int) -> str:
    """Random bytes; returns their digest."""
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            hasher.update(block)
            file.write(block)
    return hasher.hexdigest()


# -- applications, one per interface ---------------------------------------------------------------------------------


async def asgi_app(scope, receive, send):
    """Hash and write the body of a POST; answer everything else at once."""
    if scope["type"] != "http":
        return
    status = b"ok"
    if scope["method"] == "POST":
        hasher = hashlib.sha256()
        with tempfile.TemporaryFile(dir=os.environ["UPLOAD_DIR"], buffering=0) as file:
            more = True
            while more:
                message = await receive()
                chunk = message.get("body", b"")
                hasher.update(chunk)
                file.write(chunk)
                more = message.get("more_body", False)
        status = hasher.hexdigest().encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": status})


def wsgi_app(environ, start_response):
    """The same for WSGI."""
    status = b"ok"
    if environ["REQUEST_METHOD"] == "POST":
        hasher = hashlib.sha256()
        with tempfile.TemporaryFile(dir=os.environ["UPLOAD_DIR"], buffering=0) as file:
            while chunk := environ["wsgi.input"].read(1 << 18):
                hasher.update(chunk)
                file.write(chunk)
        status = hasher.hexdigest().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(status)))])
    return [status]


def serve(name: str, port: int) -> None:
    """Run one candidate; does not return."""
    if name == "granian":
        from granian import Granian
        from granian.constants import Interfaces

        Granian("upload:asgi_app", "127.0.0.1", port, interface=Interfaces.ASGI, log_enabled=False).serve()
    elif name.startswith("uvicorn"):
        import uvicorn

        _, http, loop = f"{name}-uvloop".split("-")[:3]
        uvicorn.run(asgi_app, host="127.0.0.1", port=port, http=http, loop=loop, log_level="error", lifespan="off")
    elif name == "hypercorn":
        import asyncio

        import hypercorn.asyncio
        from hypercorn.config import Config

        config = Config()
        config.bind, config.loglevel = [f"127.0.0.1:{port}"], "ERROR"
        asyncio.run(hypercorn.asyncio.serve(asgi_app, config))
    elif name == "cheroot":
        from cheroot.wsgi import Server

        Server(("127.0.0.1", port), wsgi_app).start()
    else:
        serve_aiohttp(port)


def serve_aiohttp(port: int) -> None:
    """aiohttp has an interface of its own."""
    from aiohttp import web

    async def handle(request):
        if request.method != "POST":
            return web.Response(text="ok")
        hasher = hashlib.sha256()
        with tempfile.TemporaryFile(dir=os.environ["UPLOAD_DIR"], buffering=0) as file:
            async for chunk in request.content.iter_any():
                hasher.update(chunk)
                file.write(chunk)
        return web.Response(text=hasher.hexdigest())

    app = web.Application(client_max_size=1 << 40)
    app.router.add_route("*", "/{tail:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What one upload cost the server; latencies are those of GET /api/version during another one."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    p99_ms: float
    digest_ok: bool


def measure_yardstick(path: Path) -> float:
    """CPU seconds of `cat FILE | openssl dgst -sha256`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    cat = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    subprocess.run(["openssl", "dgst", "-sha256"], stdin=cat.stdout, stdout=subprocess.DEVNULL, check=True)
    cat.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def running(name: str, port: int, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A candidate as a process of its own, ended at the end."""
    environment = os.environ | {"UPLOAD_DIR": str(directory), "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    if name == "modelbuild":
        command = [sys.executable, "-m", "modelbuild", "serve", "--port", str(port)]
        command += ["--store", str(directory / "models"), "--cache", str(directory / "cache")]
    else:
        command = [sys.executable, __file__, "--serve", name, "--port", str(port)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        wait_until_ready(port)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def wait_until_ready(port: int) -> None:
    for _ in range(400):
        try:
            probe(http.client.HTTPConnection("127.0.0.1", port, timeout=5))
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def probe(connection: http.client.HTTPConnection) -> float:
    """Seconds that GET /api/version takes."""
    started_s = time.perf_counter()
    connection.request("GET", "/api/version")
    connection.getresponse().read()
    return time.perf_counter() - started_s


def processes_of(leader: int) -> list[int]:
    """All processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def cpu_seconds(leader: int) -> float:
    total = 0.0
    for pid in processes_of(leader):
        fields = Path(f"/proc/{pid}/schedstat").read_text().split()
        threads = Path(f"/proc/{pid}/task")
        del fields
        total += sum(int((task / "schedstat").read_text().split()[0]) for task in threads.iterdir())
    return total / 1e9


def peak_mib(leader: int) -> float:
    total_kib = 0
    for pid in processes_of(leader):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def upload(port: int, path: Path, digest: str) -> str:
    """POST a file with sendfile, so that the client costs little; returns status line and body."""
    with socket.create_connection(("127.0.0.1", port)) as connection, path.open("rb") as file:
        size = path.stat().st_size
        head = f"POST /api/blobs/sha256:{digest} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {size}\r\n"
        head += "Connection: close\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendfile(file)
        connection.settimeout(60)
        with connection.makefile("rb") as answer:
            return answer.read(4096).decode("latin-1")


def measure(name: str, path: Path, digest: str, directory: Path) -> Cost:
    port = free_port()
    with running(name, port, directory) as process:
        cpu_before_s, started_s = cpu_seconds(process.pid), time.perf_counter()
        answers = [upload(port, path, digest)]
        wall_s, cpu_s = time.perf_counter() - started_s, cpu_seconds(process.pid) - cpu_before_s
        (directory / "models" / "blobs" / f"sha256-{digest}").unlink(missing_ok=True)
        latencies: list[float] = []
        with probing(port, latencies):
            answers.append(upload(port, path, digest))
        latencies.sort()
        p99_ms = 1000 * latencies[int(0.99 * (len(latencies) - 1))] if latencies else 0.0
        ok = all(digest in answer or " 201 " in answer.split("\r\n")[0] for answer in answers)
        return Cost(cpu_s, wall_s, peak_mib(process.pid), p99_ms, ok)


@contextmanager
def probing(port: int, latencies: list[float]) -> Iterator[None]:
    """Other requests while the block runs; they get an upload of their own, as they cost the server time too."""
    stop = threading.Event()
    prober = threading.Thread(target=keep_probing, args=(port, latencies, stop))
    prober.start()
    yield
    stop.set()
    prober.join()


def keep_probing(port: int, latencies: list[float], stop: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.wait(0.01):
        latencies.append(probe(connection))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_available(name: str) -> bool:
    if name == "modelbuild":
        return importlib.util.find_spec("modelbuild.server") is not None
    parts = name.split("-")
    return all(importlib.util.find_spec(part) is not None for part in parts if part != "asyncio")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", action="append")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port)
        return
    with tempfile.TemporaryDirectory() as scratch:
        report(arguments, Path(scratch))


def report(arguments: argparse.Namespace, scratch: Path) -> None:
    path = scratch / "data"
    digest = write_file(path, arguments.mib)
    gib = arguments.mib / 1024
    yardstick_s = statistics.median(measure_yardstick(path) for _ in range(arguments.repeat)) / gib
    print(f"{'server':<20}{'CPU-s/GiB':>10}{'ratio':>8}{'wall-s/GiB':>12}{'peak MiB':>10}{'p99 ms':>8}")
    print(f"{'cat | openssl':<20}{yardstick_s:>10.2f}{1:>8.2f}")
    for name in CANDIDATES:
        if not is_available(name) or (arguments.only and name not in arguments.only):
            continue
        costs = []
        for turn in range(arguments.repeat):
            directory = scratch / f"{name}-{turn}"
            directory.mkdir()
            costs.append(measure(name, path, digest, directory))
            shutil.rmtree(directory)
        if not all(cost.digest_ok for cost in costs):
            print(f"{name:<20} wrong answer")
            continue
        best = sorted(costs, key=lambda cost: cost.cpu_s)[len(costs) // 2]
        cpu_s = best.cpu_s / gib
        ratio = yardstick_s / cpu_s
        print(
            f"{name:<20}{cpu_s:>10.2f}{ratio:>8.2f}{best.wall_s / gib:>12.2f}{best.peak_mib:>10.0f}{best.p99_ms:>8.1f}"
        )


if __name__ == "__main__":
    main()
