"""Encoders beside other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.encoder.comparison import best_peers
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import size, source, table

HEAD = (
    "", "tokens a second", "texts a second", "time, of ours", "padding", "signs as in torch fp32",
    "of the matmul peak", "peak memory",
)  # fmt: skip


def measured(stored: dict[str, Any]) -> str:
    """A table per encoder, fastest first, and what it says about the best of the others."""
    result = stored["result"]
    parts = []
    for name, encoder in result["encoders"].items():
        rows = encoder["contenders"]
        ordered = sorted(rows.items(), key=lambda item: -item[1]["tokens_per_s"])
        parts += [
            f"**{name}**, {encoder['texts']:,} texts of up to {encoder['longest']} tokens, "
            f"{encoder['tokens']:,} in all:",
            "",
            *table(HEAD, [_cells(way, row) for way, row in ordered]),
            "",
            " ".join([*_sentences(encoder), *_run(encoder, stored)]),
            "",
        ]
    for name, reason in result.get("failed", {}).items():
        parts += [f"{name} was not measured: {reason}", ""]
    parts.append(
        f"{result['threads']} threads and a process each, in turn; texts: {result['data']}. "
        "From strings on: to codes (bitheads), to hidden states (transformers, the plain ones, "
        "CTranslate2), to sentence embeddings (sentence-transformers, whose signs are those of its "
        "token embeddings). † of the last layer alone."
    )
    return "\n".join([*parts, source(stored)])


def _run(encoder: dict[str, Any], stored: dict[str, Any]) -> Iterator[str]:
    """The run that an encoder is from, where it is not the one below."""
    if encoder.get("command", stored["command"]) != stored["command"]:
        yield f"(`{encoder['command']}`, {encoder['date']}.)"


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    bold = "**" if row["role"] == "ours" else ""
    agreement = row.get("sign_agreement")
    dagger = "†" if row.get("signs_of") == "last" else ""
    return [
        f"{bold}{name}{bold}",
        f"{row['tokens_per_s']:,.0f}",
        f"{row['texts_per_s']:,.0f}",
        f"{row['times_ours']:.2f}x",
        "" if row["padding_share"] is None else f"{row['padding_share']:.1%}",
        "" if agreement is None else f"{agreement:.2%}{dagger}",
        "" if row["percent_of_peak"] is None else f"{row['percent_of_peak']:.0f}%",
        size(row["peak_rss_bytes"]),
    ]


def _sentences(encoder: dict[str, Any]) -> Iterator[str]:
    ours, rows = encoder["ours"], encoder["contenders"]
    best = best_peers(rows, ours)
    words = {
        "fp32": "the fastest other in fp32",
        "as exact": "the fastest other with signs at least as exact",
        "any": "the fastest other of all",
    }
    found = [
        f"{rows[peer]['times_ours']:.2f} times as fast as {words[kind]}, {peer}"
        for kind, peer in best.items()
        if peer is not None
    ]
    if found:
        yield f"{ours} is {'; '.join(found)}."
    peaks = ", ".join(f"{rate:,.0f} in {p}" for p, rate in encoder["peak_gflops"].items())
    yield f"Peak of a matrix product, GFLOP/s: {peaks}."
    if any((row["percent_of_peak"] or 0) > 100 for row in rows.values()):
        yield "More than 100% of it: the machine was slower while the peak was measured."
    stages = rows[ours].get("stages_s")
    if stages is not None:
        others = {stage: s for stage, s in stages.items() if stage != "encode_s"}
        each = ", ".join(
            f"{stage.removesuffix('_s').replace('heads', '14 heads')} {s / stages['encode_s']:.2%}"
            for stage, s in others.items()
        )
        yield (
            f"Beside the encoder's time, everything else takes "
            f"{sum(others.values()) / stages['encode_s']:.1%} of it ({each})."
        )
    for name, reason in encoder["skipped"].items():
        yield f"Not there: {name} ({reason.rstrip('.')})."


BLOCKS = (Block("encoder", measured),)
