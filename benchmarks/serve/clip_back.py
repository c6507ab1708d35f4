"""What clip-retrieval's service does for a search, done step by step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from common import DOMAINS, Array, K, gallery, row_of
from system import System, faiss

CLIP_LINKS = 32
COLUMNS = ["id", "path", "domain", "price", "brand", "name"]


class ClipBack(System):
    """What a search of clip-retrieval's service does after its model, step by step; not that package itself.

    Its `clip_index` hands the vectors to autofaiss with 4 GB for the index. autofaiss then takes, from 10,000 vectors
    on, an HNSW graph of up to 32 links where it fits (100,000 x 512: HNSW32), built with FAISS' defaults. Its service
    searches with `search_and_reconstruct`, makes the vectors found unit length, drops near-duplicates where asked to
    (threshold 0.94, by connected components), and fetches the metadata row by row from a table of Arrow
    (`--use_arrow`), through pandas. autofaiss lets a search take up to 10 ms and spends all of it on effort; here the
    effort is only what the same recall needs, which is in its favour.
    """

    metadata = True

    def build(self) -> dict[str, Any]:
        import pyarrow as pa

        self.module = faiss(self.settings)
        self.index = self.module.IndexHNSWFlat(self.settings.dim, CLIP_LINKS, self.module.METRIC_INNER_PRODUCT)
        self.module.omp_set_num_threads(os.cpu_count() or 1)
        self.index.add(gallery(self.settings.items, self.settings.dim))
        self.module.omp_set_num_threads(self.settings.threads)
        file = Path(self.settings.work) / f"clip-{self.settings.items}.arrow"
        rows = [{**row_of(number), "domain": DOMAINS[1]} for number in range(self.settings.items)]
        table = pa.Table.from_pylist(rows).select(COLUMNS)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        del rows, table
        self.table = pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all()
        return {"index": f"HNSW{CLIP_LINKS}"}

    def ask(self, query: Array) -> list[int]:
        self.index.hnsw.efSearch = max(K, self.effort or 0)
        scores, rows, vectors = self.index.search_and_reconstruct(query[None], K)
        near = vectors[0] / np.maximum(np.linalg.norm(vectors[0], axis=1, keepdims=True), 1e-12)
        gone = self._duplicates(near) if self.dedup else set()
        kept = [place for place in range(len(near)) if place not in gone]
        wanted = [int(rows[0][place]) for place in kept]
        found = self._metadata(wanted)
        answer = [
            {**one, "id": number, "similarity": float(scores[0][place])}
            for one, number, place in zip(found, wanted, kept, strict=True)
        ]
        return [int(one["id"]) for one in answer]

    def _metadata(self, rows: list[int]) -> list[dict[str, Any]]:
        import pyarrow as pa

        slices = [self.table.slice(row, 1) for row in rows]
        found: list[dict[str, Any]] = pa.concat_tables(slices).select(COLUMNS).to_pandas().to_dict("records")
        return found

    def _duplicates(self, near: Array) -> set[int]:
        """All but the first of each group that is connected by similarities of 0.94 and more."""
        small = self.module.IndexFlatIP(near.shape[1])
        small.add(near)
        limits, _, others = small.range_search(near, 0.94)
        seen: set[int] = set()
        gone: set[int] = set()
        for first in range(len(near)):
            group, open_ = [], [first] if first not in seen else []
            while open_:
                one = open_.pop()
                if one not in seen:
                    seen.add(one)
                    group.append(one)
                    open_.extend(others[limits[one] : limits[one + 1]].tolist())
            gone.update(sorted(group)[1:])
        return gone
