"""Indexes of FAISS and USearch over signs, built and timed by the row and the query."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.figures.rounding import rounded
from benchmarks.figures.turns import Contender, in_turn
from benchmarks.search.ways import CANDIDATES, NEAREST, Side, rescore
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError

FLIPPED = 0.15
"""The share of the bits of a real row that are turned over in each of its copies, so that copies
are as far from each other as texts on one subject."""

FLOAT_ROWS = 100_000
"""Rows of the float index: 150 MB at dim 384."""

LISTS_A_MILLION = 1024
PROBES = (8, 32)
"""Lists that a query looks into."""

LINKS = 16
"""Of a node of HNSW."""

LOOKED_AT = 128
"""Nodes of HNSW that a search keeps at least, for 100 rows."""

TRAINED_ROWS = 40
"""For each list, that IVF's lists are made of."""

ROUNDS, BUDGET_S = 9, 120.0
TIMED_QUERIES = 20

Rows = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Index:
    """One to be timed.

    Attributes:
        search: (queries, count) -> distances [queries, count].
        rows: in it.
        seconds: that building it took, on all cores.
    """

    search: Callable[[Any, int], NDArray[Any]]
    rows: int
    seconds: float


def copies(signs: Rows, count: int) -> Rows:
    """So many rows: the real ones over and over, each time with other bits turned over."""
    draw = np.random.default_rng(0)
    found = np.empty((count, signs.shape[1]), np.uint8)
    for start in range(0, count, len(signs)):
        rows = signs[: count - start]
        flips = draw.random((len(rows), 8 * signs.shape[1]), np.float32) < FLIPPED
        found[start : start + len(rows)] = rows ^ np.packbits(flips, axis=1)
    return found


def measure(texts: Side, queries: Side, rows: int) -> dict[str, Any]:
    """Microseconds of a query on one core, and the share of the nearest that an index finds.

    Raises InputError if FAISS or USearch is not installed.
    """
    faiss, usearch = import_libraries()
    many = copies(texts.signs, rows)
    binary = {
        "IndexBinaryFlat": _flat(faiss, many),
        **_lists(faiss, many),
        "IndexBinaryHNSW": _graph(faiss, many),
        "USearch": _usearch(usearch, many),
    }
    floats = _floats(faiss, texts.floats, min(rows, FLOAT_ROWS))
    faiss.omp_set_num_threads(1)
    exact = binary["IndexBinaryFlat"].search(queries.signs, NEAREST)[:, -1:]
    few = Side(*(getattr(queries, field.name)[:TIMED_QUERIES] for field in fields(Side)))
    calls: dict[str, Callable[[], object]] = {
        name: partial(_one_by_one, index.search, few.signs, CANDIDATES)
        for name, index in binary.items()
    }
    calls["IndexFlatIP"] = partial(_one_by_one, floats.search, few.floats, NEAREST)
    calls["rescoring"] = partial(_rescore_each, few.floats, many[:CANDIDATES])
    say("timing")
    work = len(few.signs)
    samples = in_turn({n: Contender(c, work) for n, c in calls.items()}, ROUNDS, BUDGET_S)
    found = {}
    for name, index in binary.items():
        # Of rows at the same distance any is right.
        right = index.search(queries.signs, NEAREST) <= exact
        found[name] = {
            "rows": index.rows,
            "recall": rounded(float(right.mean())),
            "build_seconds": rounded(index.seconds),
            **samples.summary(name),
        }
    found["IndexFlatIP"] = {"rows": floats.rows, **samples.summary("IndexFlatIP")}
    return {
        "versions": record.versions(("faiss-cpu", "usearch")),
        "flipped": FLIPPED,
        "indexes": found,
        "rescoring": samples.summary("rescoring"),
    }


def import_libraries() -> tuple[Any, Any]:
    """faiss and usearch.index. Raises InputError if one is not installed."""
    try:
        import faiss
        from usearch import index
    except ImportError as error:
        raise InputError(
            f"search: {error}, expected FAISS and USearch. Type: pip install -e '.[bench]'"
        ) from error
    return faiss, index


def _flat(faiss: Any, rows: Rows) -> Index:
    started_s = time.perf_counter()
    index = faiss.IndexBinaryFlat(8 * rows.shape[1])
    index.add(rows)
    return _of_faiss(index, started_s)


def _lists(faiss: Any, rows: Rows) -> dict[str, Index]:
    """One index, by the lists that a query looks into."""
    say("IndexBinaryIVF")
    started_s = time.perf_counter()
    bits, lists = 8 * rows.shape[1], max(1, LISTS_A_MILLION * len(rows) // 1_000_000)
    index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, lists)
    index.train(rows[: TRAINED_ROWS * lists])
    index.add(rows)
    seconds = time.perf_counter() - started_s

    def search(probes: int, queries: Rows, count: int) -> NDArray[Any]:
        index.nprobe = probes
        distances: NDArray[Any] = index.search(queries, count)[0]
        return distances

    name = f"IndexBinaryIVF, {{}} of {lists:,} lists"
    return {
        name.format(probes): Index(partial(search, probes), len(rows), seconds) for probes in PROBES
    }


def _graph(faiss: Any, rows: Rows) -> Index:
    say("IndexBinaryHNSW")
    started_s = time.perf_counter()
    index = faiss.IndexBinaryHNSW(8 * rows.shape[1], LINKS)
    index.add(rows)
    index.hnsw.efSearch = LOOKED_AT
    return _of_faiss(index, started_s)


def _usearch(usearch: Any, rows: Rows) -> Index:
    say("USearch")
    started_s = time.perf_counter()
    index = usearch.Index(
        ndim=8 * rows.shape[1],
        metric="hamming",
        dtype="b1",
        connectivity=LINKS,
        expansion_search=LOOKED_AT,
    )
    index.add(np.arange(len(rows)), rows)
    seconds = time.perf_counter() - started_s

    def search(queries: Rows, count: int) -> NDArray[Any]:
        found: NDArray[Any] = index.search(queries, count, threads=1).distances
        return found.reshape(len(queries), -1)

    return Index(search, len(rows), seconds)


def _floats(faiss: Any, vectors: Floats, count: int) -> Index:
    started_s = time.perf_counter()
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, count, len(vectors)):
        index.add(vectors[: count - start])
    return _of_faiss(index, started_s)


def _of_faiss(index: Any, started_s: float) -> Index:
    seconds = time.perf_counter() - started_s

    def search(queries: Any, count: int) -> NDArray[Any]:
        distances: NDArray[Any] = index.search(queries, count)[0]
        return distances

    return Index(search, index.ntotal, seconds)


def _one_by_one(search: Callable[[Any, int], object], queries: NDArray[Any], count: int) -> None:
    for i in range(len(queries)):
        search(queries[i : i + 1], count)


def _rescore_each(queries: Floats, candidates: Rows) -> None:
    for query in queries:
        rescore(query, candidates)
