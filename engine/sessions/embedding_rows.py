"""How many tokens and token types an encoder has embeddings for.

OpenVINO answers anything for ids past a table's end, so a tokenizer must not give any.
"""

from __future__ import annotations

from pathlib import Path

from bitheads.engine import bundle
from bitheads.engine.sessions import BACKENDS, is_installed, load_file


def embedding_rows(folder: Path, manifest: bundle.Manifest) -> tuple[int | None, int | None]:
    """(rows of the table of tokens, rows of that of token types), None where it is not known.

    A bundle says it. Earlier ones did not: theirs is read from the graph, where a backend that
    reads graphs is installed; ONNX Runtime compares ids with the tables by itself.
    """
    encoder = manifest.encoder
    if encoder.vocabulary is not None:
        return encoder.vocabulary, encoder.token_types
    for backend, row in BACKENDS.items():
        if row.reads_graphs and is_installed(backend):
            rows = load_file(backend).table_rows(folder / bundle.GRAPH)
            return rows.get("input_ids"), rows.get("token_type_ids")
    return None, None
