"""A real `isthmus serve` process, and clients that cost little."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from common import Array, memory_mb
from PIL import Image

BOUNDARY = "isthmus-benchmark"
STARTING = 180.0


class Server:
    """`isthmus serve CATALOG` on a free port of this machine, until the block ends.

    Args:
        catalog: to serve.
        log: file for what it says.
        more: further words of the command line, such as `--set queue=8`.
        threads: that the model computes with.
    """

    def __init__(self, catalog: Path, log: Path, more: list[str], threads: int) -> None:
        command = [sys.executable, "-m", "isthmus.cli.main", "serve", str(catalog), "--port", "0"]
        command += ["--set", f"threads={threads}", *more]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._log = log.open("wb")
        begun = time.perf_counter()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=environment)
        self.port = self._find_port(log)
        self.seconds_to_start = round(time.perf_counter() - begun, 2)
        threading.Thread(target=self._drain, daemon=True).start()

    def _find_port(self, log: Path) -> int:
        assert self._process.stdout is not None
        limit = threading.Timer(STARTING, self._process.kill)
        limit.start()
        try:
            for line in self._process.stdout:
                if found := re.search(rb" at http://[^ ]*:(\d+)/", line):
                    return int(found[1])
        finally:
            limit.cancel()
        raise SystemExit(f"isthmus serve did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")

    def _drain(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            pass

    def memory(self) -> dict[str, float]:
        return memory_mb(self._process.pid)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and the JSON (or text) of a path."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.request("GET", path)
        answer = line.getresponse()
        body = answer.read()
        line.close()
        return answer.status, json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until what the service builds behind the searches' back is done: it takes less than 5 % of a core."""
        until = time.monotonic() + seconds
        quiet = 0
        while quiet < 3 and time.monotonic() < until:
            before = self._cpu()
            time.sleep(0.5)
            quiet = quiet + 1 if self._cpu() - before < 0.025 else 0

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


def picture(seed: int, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Something like a photograph to a decoder: smooth areas, edges, a little grain."""
    draw = np.random.default_rng(seed)
    width, height = size
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels: Array = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16).copy()
    for _ in range(6):
        left, top = int(draw.integers(0, width - 20)), int(draw.integers(0, height - 20))
        part = pixels[top : top + int(draw.integers(20, height)), left : left + int(draw.integers(20, width))]
        part += draw.integers(-60, 60, 3).astype(np.int16)
    pixels += draw.normal(0, 4, (height, width, 1)).astype(np.int16)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def drawing(seed: int, side: int = 256) -> Image.Image:
    """Black lines on white, as somebody draws."""
    from PIL import ImageDraw

    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        points = np.cumsum(draw.normal(0, 9, (30, 2)), axis=0) + draw.integers(40, side - 40, 2)
        pen.line([(float(x), float(y)) for x, y in points], "black", 4)
    return image


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_request(data: bytes, options: dict[str, Any]) -> bytes:
    """A whole HTTP request of `POST /api/search/image`."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="query.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body += data + f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="options"\r\n\r\n'.encode()
    body += json.dumps(options).encode() + f"\r\n--{BOUNDARY}--\r\n".encode()
    return _request("/api/search/image", f"multipart/form-data; boundary={BOUNDARY}", body)


def json_request(value: dict[str, Any]) -> bytes:
    """A whole HTTP request of `POST /api/search`."""
    return _request("/api/search", "application/json", json.dumps(value).encode())


def _request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(head[0].split()[1]), headers, body

    def close(self) -> None:
        """Also after an error: the next request takes a new connection."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None
