"""What features take on disk."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import size, source, table


def measured(stored: dict[str, Any]) -> str:
    """A row for each layer and position pooling, a column for each encoder and precision."""
    result = stored["result"]
    encoders = result["encoders"]
    precisions = list(dict.fromkeys(c["precision"] for e in encoders.values() for c in e["cells"]))
    columns = [(name, precision) for name in encoders for precision in precisions]
    names = [f"{name}, {precision}" for name, precision in columns]
    rows = []
    found = {
        (name, cell["layer_pooling"], cell["positions"], cell["precision"]): cell["bytes_a_text"]
        for name, encoder in encoders.items()
        for cell in encoder["cells"]
    }
    for pooling, positions in dict.fromkeys(key[1:3] for key in found):
        cells = [size(found[name, pooling, positions, precision]) for name, precision in columns]
        rows.append([_pooling(pooling, encoders), positions, *cells])
    files = [file for encoder in encoders.values() for file in encoder["cells"]]
    exact = all(file["bytes_a_text"] == file["formula"] for file in files)
    sources = "; ".join(
        f"{name}: {encoder['texts']} texts, {encoder['source']}"
        for name, encoder in encoders.items()
    )
    lines = [
        *table(["layers", "positions", *names], rows, left=2),
        "",
        f"Files of codes, bytes a text of {result['text_tokens']} tokens ({sources}); "
        + ("each is what the formula says, " if exact else "NOT each is what the formula says, ")
        + "layers x positions x dim x bits. Where every token is kept, its text's offset takes 8 "
        "bytes more.",
    ]
    return "\n".join([*lines, source(stored)])


def _pooling(pooling: str, encoders: dict[str, Any]) -> str:
    if pooling == "every layer":
        return f"every layer ({' / '.join(str(e['layers']) for e in encoders.values())})"
    if pooling == "mean":
        return f"mean of the last {' / '.join(str(e['pooled_layers']) for e in encoders.values())}"
    return "last"


BLOCKS = (Block("storage", measured),)
