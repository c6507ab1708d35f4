"""50 clients at once for a minute: statuses, latency, throughput; then the same with a short queue.

    python benchmarks/serve/crowd.py --work SCRATCH [--items 100000] [--seconds 60] [--clients 50]

Each client asks again as soon as it is answered: 8 of 10 requests send a PNG, one strokes, one an item's id; some have
a filter. After a 429 it waits as long as Retry-After says. Clients and service share the machine's cores. With the
usual queue all 50 may wait; the second part has a queue of 8, so that refusals are seen, and nothing but refusals.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import DOMAINS, K, filled_catalog, parser, spread_of, write

FILTER = {"column": "price", "is": "<", "value": 500}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--serve", action="append", default=[], metavar="K=V", help="a setting of the service")
    settings = options.parse_args()
    begun = time.perf_counter()
    place = filled_catalog(settings)
    requests = _requests(settings)
    result: dict[str, Any] = {}
    for name, seconds, pairs in (
        ("usual", settings.seconds, []),
        ("queue_of_8", max(2.0, settings.seconds / 4), ["queue=8", "batch=4"]),
    ):
        result[name] = _crowd(settings, place, requests, seconds, [*settings.serve, *pairs])
    good = all(part["errors_but_429"] == 0 for part in result.values())
    result["targets"] = {"no error but 429": good}
    write(settings, "crowd", result, begun)
    if not good:
        sys.exit("there were errors other than 429; see above")


def _requests(settings: Any) -> list[tuple[str, bytes]]:
    from server import drawing, image_request, json_request, picture, png

    made: list[tuple[str, bytes]] = []
    for number in range(40):
        options: dict[str, Any] = {"k": K} | ({"where": FILTER} if number % 4 == 0 else {})
        if number % 10 < 8:
            drawn = number % 2 == 0
            data = png(drawing(number) if drawn else picture(number))
            made.append(("image", image_request(data, {**options, "domain": DOMAINS[0 if drawn else 1]})))
        elif number % 10 == 8:
            points = np.cumsum(np.random.default_rng(number).normal(0, 12, (60, 2)), axis=0) + 150
            line = {"points": np.clip(points, 0, 299).round(1).tolist(), "width": 4, "erase": False}
            strokes = {"width": 300, "height": 300, "lines": [line]}
            made.append(("strokes", json_request({**options, "strokes": strokes})))
        else:
            made.append(("id", json_request({**options, "id": f"item{number * 37 % settings.items}"})))
    return made


def _crowd(
    settings: Any, place: Path, requests: list[tuple[str, bytes]], seconds: float, pairs: list[str]
) -> dict[str, Any]:
    from server import Client, Server

    more = [word for pair in pairs for word in ("--set", pair)]
    statuses: Counter[str] = Counter()
    times: dict[str, list[float]] = {"image": [], "strokes": [], "id": []}
    refused: list[float] = []
    reasons: Counter[str] = Counter()

    async def one(port: int, number: int, until: float) -> None:
        client, turn = Client(port), number * 7
        while time.perf_counter() < until:
            kind, request = requests[turn % len(requests)]
            turn += 1
            start = time.perf_counter()
            try:
                status, headers, body = await client.ask(request)
            except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                statuses["broken connection"] += 1
                reasons[f"{type(error).__name__}: {error}"] += 1
                client.close()
                await asyncio.sleep(0.1)
                continue
            took = time.perf_counter() - start
            statuses[str(status)] += 1
            if status == 200:
                times[kind].append(took)
            elif status == 429 and "retry-after" in headers:
                refused.append(took)
                await asyncio.sleep(float(headers["retry-after"]))
            else:
                reasons[body[:200].decode(errors="replace")] += 1
        client.close()

    async def all_(port: int, length: float) -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(one(port, number, begun + length) for number in range(settings.clients)))
        return time.perf_counter() - begun

    with Server(place, settings.work / "serve.log", more, settings.threads) as server:
        asyncio.run(all_(server.port, min(3.0, seconds / 4)))
        server.settle()
        for kept in (*times.values(), refused):
            kept.clear()
        warm = Counter(statuses)
        statuses.clear()
        length = asyncio.run(all_(server.port, seconds))
        ready, _ = server.get("/api/health/ready")
        memory = server.memory()
    done = sum(map(len, times.values()))
    bad = {status: count for status, count in (statuses + warm).items() if status not in ("200", "429")}
    return {
        "seconds": round(length, 1),
        "settings": pairs,
        "clients": settings.clients,
        "statuses": dict(statuses),
        "statuses_while_warming": dict(warm),
        "errors_but_429": sum(bad.values()) + (ready != 200),
        "reasons": dict(reasons.most_common(5)),
        "answers_a_second": round(done / length, 1),
        "latency": {kind: spread_of(kept) for kind, kept in times.items()},
        "latency_of_all": spread_of([time_ for kept in times.values() for time_ in kept]),
        "refusals": spread_of(refused),
        "memory": memory,
    }


if __name__ == "__main__":
    main()
