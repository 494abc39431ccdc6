"""Search in texts by the signs of their embeddings: what it finds, and what a query takes.

What is found is of real texts; times are of as many rows as are asked for, copies of those texts'
signs with some bits turned over.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.options import command, require_at_least
from benchmarks.search import indexes, ways
from benchmarks.search.corpus import encoded, texts_of
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/search.json; a quick run only prints.

    Raises InputError, BundleError or StoreError for what is missing.
    """
    require_at_least(ways.CANDIDATES, options, "texts", "rows")
    require_at_least(1, options, "queries")
    indexes.import_libraries()  # before what takes long
    if options.quick:
        options.texts, options.queries, options.rows = 150, 10, 2000
        with tempfile.TemporaryDirectory() as folder:
            result = measure(options, Path(folder))
    else:
        result = measure(options, options.store)
    record.keep("search", command("search", options), result, options.quick)


def measure(options: argparse.Namespace, store: Path) -> dict[str, Any]:
    """What is found in the texts, and how long looking for it takes."""
    texts = texts_of(options.data, options.texts + options.queries)
    if len(texts) <= options.queries + ways.CANDIDATES:
        raise InputError(
            f"--data {options.data}: got {len(texts)} short texts, expected {options.texts} and "
            f"{options.queries} queries. Name a folder of more, or ask for fewer."
        )
    corpus = encoded(options.bundle, store, texts)
    queries = ways.Side.of(corpus, slice(options.queries))
    found_in = ways.Side.of(corpus, slice(options.queries, None))
    say("comparing")
    recalls = ways.recalls(queries, found_in)
    dim = corpus.vectors.shape[1]
    return {
        "quick": options.quick,
        "bundle": options.bundle.name,
        "dim": dim,
        "texts": len(found_in.floats),
        "source": "shipped sentences, joined" if options.data is None else "training files",
        "characters": sum(map(len, texts)) / len(texts),
        "tokens_a_text": corpus.tokens,
        "queries": len(queries.floats),
        "nearest": ways.NEAREST,
        "candidates": ways.CANDIDATES,
        "recall": recalls,
        "timed": indexes.measure(found_in, queries, options.rows),
    }
