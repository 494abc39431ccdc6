"""How many signs are as in torch."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """A row per session."""
    result = stored["result"]
    head = ["session", "signs as in torch fp32", "worst layer", "max abs error, pooled"]
    rows = []
    for name, session in result["sessions"].items():
        worst = min(layer["sign_agreement"] for layer in session["layers"].values())
        pooled = session["pooled"]
        rows.append(
            [
                name,
                f"{pooled['sign_agreement']:.3%}",
                f"{worst:.3%}",
                f"{pooled['max_abs_error']:.4f}",
                _near_zero(pooled["margin_histogram"]),
            ]
        )
    note = (
        f"{result['texts']:,} real texts, {result['tokens']:,} tokens, {result['encoder']}, graph "
        f"typed in {result['graph_precision']}."
    )
    lines = table([*head, "differing signs within 1% of zero"], rows)
    return "\n".join([*lines, "", note, source(stored)])


def _near_zero(histogram: dict[str, Any]) -> str:
    """Share of the differing signs whose feature is within 1% of its root mean square of zero.

    Empty if no signs differ.
    """
    bins = zip(histogram["lower_edges_rms"], histogram["flipped"], strict=True)
    near = sum(flipped for edge, flipped in bins if edge < 0.01)
    total = sum(histogram["flipped"])
    return f"{near / total:.1%}" if total else ""


BLOCKS = (Block("parity", measured),)
