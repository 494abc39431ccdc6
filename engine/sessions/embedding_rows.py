"""How many tokens and token types an encoder has embeddings for.

OpenVINO answers anything for ids past a table's end, so a tokenizer must not give any.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitheads.engine import bundle
from bitheads.engine.errors import ForkedError


def embedding_rows(folder: Path, manifest: bundle.Manifest) -> tuple[int | None, int | None]:
    """(rows of the table of tokens, rows of that of token types), None where it is not known.

    A bundle says it. Earlier ones did not: theirs is read from the graph, where OpenVINO is
    installed; ONNX Runtime compares ids with the tables by itself.
    """
    encoder = manifest.encoder
    if encoder.vocabulary is not None:
        return encoder.vocabulary, encoder.token_types
    if find_spec("openvino") is None:
        return None, None
    from bitheads.engine.sessions.openvino_core import the_core

    try:
        model = the_core().read_model(folder / bundle.GRAPH)
    except (RuntimeError, ForkedError):  # the session that is opened next says what is wrong
        return None, None
    rows = {port.get_any_name(): _rows_looked_up(port) for port in model.inputs}
    return rows.get("input_ids"), rows.get("token_type_ids")


def _rows_looked_up(ids: Any) -> int | None:
    """Of the smallest table that is looked up with an openvino.Output, as host/src/session.cpp."""
    found = []
    for target in ids.get_target_inputs():
        node = target.get_node()
        kind = node.get_type_name()
        if kind == "Convert":
            found.append(_rows_looked_up(node.output(0)))
        elif kind == "Gather" and target.get_index() == 1:
            rows = node.get_input_partial_shape(0)[0]
            found.append(rows.get_length() if rows.is_static else None)
    return min((rows for rows in found if rows is not None), default=None)
