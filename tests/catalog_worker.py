"""A process that forks workers on a catalog, so that many can be killed without importing everything each time.

Run as a script it reads one JSON order a line, `{"work": name, "arguments": {...}}`, and answers with the process id of
the fork that does it, and later with nothing: a worker's acknowledgements stand in the file `log` of its arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

State = dict[str, list[Any]]  # id -> [number of the picture, price]
PICTURES = 24


class Worker:
    """The starter of workers; `start` forks one."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        with errors.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip

    def start(self, work: str, **arguments: Any) -> int:
        """The process id of a new worker."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"work": work, "arguments": arguments}, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.errors.read_text()
        return int(answer)

    def stop(self) -> None:
        """End the starter."""
        self.process.kill()
        self.process.communicate()


def log(path: str | Path, line: Any) -> None:
    """Add a line to a worker's log, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


def logged(path: Path) -> list[Any]:
    """The whole lines of a log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for(done: Any, seconds: float = 60.0) -> None:
    """Until `done()`; fails after so many seconds."""
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


def alive(process: int) -> bool:
    """Whether a worker still runs; the starter collects those that have ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def end(process: int) -> None:
    """kill -9, and wait until it is gone; it may have come to its end by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: not alive(process))


CHANGES = ("add", "update", "delete", "sync", "compact")


def change(home: str, state: State, seed: int, first: str, log_to: str) -> None:
    """Change the catalog at `home` for ever; before each change its possible states are logged, after it 'done'."""
    from catalog_tools import FakeModel

    from isthmus import Catalog
    from isthmus.data.manifest import Manifest, Row

    chance = random.Random(seed)
    place = Path(home)
    shop = place / "shop"
    catalog = Catalog.open(place / "catalog", FakeModel())

    def pool(number: int) -> Path:
        return place / "pool" / f"{number:03}.png"

    while True:
        after: State = {id: list(values) for id, values in state.items()}
        between: list[State] = []
        kind, first = first or chance.choice(["add", *CHANGES]), ""
        work: Any
        if kind == "add":
            some = {f"a{chance.randrange(PICTURES)}": chance.randrange(PICTURES) for _ in range(6)}
            rows = [Row(id, str(pool(number)), "photo") for id, number in some.items()]
            prices = {id: {"price": chance.randrange(100)} for id in some}
            after.update({id: [number, float(prices[id]["price"])] for id, number in some.items()})
            work = lambda rows=rows, prices=prices: catalog.add(Manifest(rows), metadata=prices)  # noqa: E731
        elif kind == "update":
            chosen = chance.sample(sorted(state), min(5, len(state)))
            prices = {id: {"price": chance.randrange(100)} for id in chosen}
            after.update({id: [state[id][0], float(prices[id]["price"])] for id in chosen})
            work = (lambda prices=prices: catalog.update(prices)) if chosen else (lambda: None)
        elif kind == "delete":
            chosen = chance.sample(
                sorted(id for id in state if id[0] == "a"), min(3, sum(id[0] == "a" for id in state))
            )
            for id in chosen:
                del after[id]
            work = lambda chosen=chosen: catalog.delete(chosen)  # noqa: E731
        elif kind == "sync":
            for number in chance.sample(range(PICTURES), 3):
                name = shop / f"{number:03}.png"
                if name.exists() and len(list(shop.iterdir())) > 1:
                    name.unlink()
                elif not name.exists():
                    shutil.copy(pool(number), name)
            there = {f"photo/{file.name}": int(file.stem) for file in shop.iterdir()}
            for id, number in there.items():
                after.setdefault(id, [number, None])
            between = [
                {id: list(values) for id, values in after.items()}
            ]  # what is new goes in before what is gone goes
            after = {id: values for id, values in after.items() if id[0] == "a" or id in there}
            work = lambda: catalog.sync(shop)  # noqa: E731
        else:
            import datetime as dt

            work = lambda: catalog.compact(dt.timedelta(0), alone=True)  # noqa: E731
        log(log_to, [kind, [state, *between, after]])
        work()
        log(log_to, "done")
        state = after


def replace_all(home: str, seconds: float, log_to: str) -> None:
    """Give all items another picture and generation again and again, in one change each."""
    from catalog_tools import FakeModel

    from isthmus import Catalog
    from isthmus.data.manifest import Manifest, Row

    catalog = Catalog.open(Path(home) / "catalog", FakeModel())
    limit = time.monotonic() + seconds
    generation = 0
    while time.monotonic() < limit:
        generation += 1
        path = str(Path(home) / "pool" / f"{generation % PICTURES:03}.png")
        ids = [f"a{number}" for number in range(PICTURES)]
        catalog.add(
            Manifest(Row(id, path, "photo") for id in ids), metadata={id: {"generation": generation} for id in ids}
        )
        if generation % 5 == 0:
            catalog.compact()
    log(log_to, generation)


def read_all(home: str, writer_log: str, log_to: str) -> None:
    """Read and search until the writer has ended; every answer is of one generation, and none goes back."""
    from catalog_tools import FakeModel

    from isthmus import Catalog
    from isthmus.io import read_json

    hashes = read_json(Path(home) / "hashes.json")
    catalog = Catalog.open(Path(home) / "catalog", FakeModel())
    last = reads = 0
    seen: set[int] = set()
    while not Path(writer_log).exists():
        rows = list(catalog.rows())
        found = {(row["generation"], row["hash"]) for row in rows}
        assert len(rows) == PICTURES and len(found) == 1, found
        generation = int(found.pop()[0])
        assert generation >= last, (generation, last)
        assert rows[0]["hash"] == hashes[generation % PICTURES], generation
        hits = catalog.search(id="a3", k=5)
        assert len(hits) == 5 and all(hit.metadata["generation"] >= generation for hit in hits), hits
        last, reads = generation, reads + 1
        seen.add(generation)
    log(log_to, [reads, len(seen)])


def reembed(home: str, delay: float, log_to: str) -> None:
    """Re-embed the catalog slowly."""
    from catalog_tools import Other

    from isthmus.catalog import reembed as module
    from isthmus.catalog import sync

    sync.PART, sync.CHUNK_ROWS = 2, (2, 2)
    model = Other(before=lambda count: time.sleep(delay))
    done = module.reembed(Path(home) / "catalog", model, sample=0)
    log(log_to, [done.switched, done.embedded])


def main() -> None:
    """Fork a worker for each order."""
    # The slow imports, before the forks; nothing of LanceDB runs in this process.
    for module in ("lancedb", "lancedb.index", "isthmus.ops", "isthmus.data.loading", "isthmus.catalog.reembed"):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ended is collected at once
    warnings.filterwarnings("ignore", message=".*fork.*")
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work = {"change": change, "replace_all": replace_all, "read_all": read_all, "reembed": reembed}
            work[order["work"]](**order["arguments"])
            sys.stdout.flush()
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
