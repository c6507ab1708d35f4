"""From a PNG of 256 x 256 to JSON over HTTP, warm, 100,000 items: what comes on top of the model.

    python benchmarks/serve/end_to_end.py --work SCRATCH [--items 100000] [--requests 300] [--threads 2]

One client asks one thing after the other. The model's time is what the service itself measured for that very request
(from the decoded picture to its vector); beside it stands the same model called alone, in this process, before the
service starts. What the service puts on top is the difference, request by request.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import numpy as np
from common import DOMAINS, K, clocked, filled_catalog, model_folder, parser, spread_of, write

TARGET_MS = 5.0


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=300)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--serve", action="append", default=[], metavar="K=V", help="a setting of the service")
    settings = options.parse_args()
    begun = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    from server import Server, drawing, image_request, picture, png

    place = filled_catalog(settings)
    photos = [png(picture(seed)) for seed in range(16)]
    drawings = [png(drawing(seed)) for seed in range(16)]
    alone = _alone(settings, drawings)
    more = [word for pair in settings.serve for word in ("--set", pair)]
    result: dict[str, Any] = {"png_bytes": {"photo": _mean(photos), "drawing": _mean(drawings)}}
    with Server(place, settings.work / "serve.log", more, settings.threads) as server:
        result["seconds_to_start"] = server.seconds_to_start
        for name, files, domain in (("drawing", drawings, DOMAINS[0]), ("photo", photos, DOMAINS[1])):
            requests = [image_request(data, {"k": K, "domain": domain}) for data in files]
            asyncio.run(_ask(server.port, requests, 40))
            server.settle()
            result[name] = _summary(asyncio.run(_ask(server.port, requests, settings.requests)))
        result["memory"] = server.memory()
    result["model_alone"] = alone
    added = max(result[name]["on_top"]["p50_ms"] for name in ("drawing", "photo"))
    result["targets"] = {f"median on top of the model at most {TARGET_MS:g} ms": added <= TARGET_MS}
    write(settings, "end_to_end", result, begun)


async def _ask(port: int, requests: list[bytes], count: int) -> list[tuple[float, float, float]]:
    """(whole, model, search) seconds of each request."""
    from server import Client

    client, times = Client(port), []
    for number in range(count):
        start = time.perf_counter()
        status, _, body = await client.ask(requests[number % len(requests)])
        whole = time.perf_counter() - start
        answer = json.loads(body)
        if status != 200 or len(answer["hits"]) != K or not answer["hits"][0]["metadata"]:
            raise SystemExit(f"status {status}: {body[:300]!r}")
        times.append((whole, answer["seconds"]["model"], answer["seconds"]["search"]))
    client.close()
    return times


def _summary(times: list[tuple[float, float, float]]) -> dict[str, Any]:
    whole, model, search = (list(part) for part in zip(*times, strict=True))
    on_top = [all_ - net for all_, net, _ in times]
    return {
        "whole": spread_of(whole),
        "model": spread_of(model),
        "search": spread_of(search),
        "on_top": spread_of(on_top),
        "neither_model_nor_search": spread_of([top - found for top, found in zip(on_top, search, strict=True)]),
        "ratio_whole_to_model": round(float(np.median(whole) / np.median(model)), 3),
    }


def _alone(settings: Any, files: list[bytes]) -> dict[str, Any]:
    """The model without a service: the whole encoder, its network alone, and the decoding of the PNG."""
    import torch

    from isthmus.data.images import load_image
    from isthmus.models.encoder import Model

    torch.set_num_threads(settings.threads)
    model = Model.load(model_folder(settings))
    images = [load_image(data) for data in files]
    view = torch.stack([model.preprocessing(images[0])])
    for image in images:
        model.encode([image], domain=DOMAINS[0], workers=0)
    encoder, network, decoder = [], [], []
    for number in range(min(100, settings.requests)):
        image, data = images[number % len(images)], files[number % len(files)]
        encoder.append(clocked(model.encode, [image], domain=DOMAINS[0], workers=0)[0])
        network.append(clocked(model.embed, view, 0)[0])
        decoder.append(clocked(load_image, data)[0])
    return {
        "encoder": spread_of(encoder),
        "network": spread_of(network),
        "decoding_png": spread_of(decoder),
        "torch_threads": torch.get_num_threads(),
    }


def _mean(files: list[bytes]) -> int:
    return sum(map(len, files)) // len(files)


if __name__ == "__main__":
    main()
