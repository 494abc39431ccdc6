"""Task heads on CPUs, in a table and the sentences beside it."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

HEAD = (
    "dim / attention heads", "codes", "tasks", "us a text and task",
    "torch's `MultiheadAttention`", "folded in torch", "NumPy",
    "at `avx2`: `MultiheadAttention`", "of the peak",
)  # fmt: skip


def measured(stored: dict[str, Any]) -> str:
    """A row per cell, then the rest of the measurements in a few sentences."""
    result = stored["result"]
    level = result["level"]
    peers = ("torch_usual", "torch_folded", "numpy")
    rows = []
    for cell in result["cells"]:
        faster = cell["times_faster"]
        avx2 = faster.get("avx2", {}).get("torch_usual")
        cells = [
            f"{cell['dim']:,} / {cell['attention_heads']}",
            cell["codes"],
            f"{cell['tasks']:,}",
            f"{cell['us_per_text_and_task'][level]['us']:,.3g}",
            *(_times(faster[level][peer]) for peer in peers),
            "" if avx2 is None else _times(avx2),
            f"{cell['percent_of_peak'][level]:.0f}%",
        ]
        rows.append(cells)
    sentences = [
        f"Level `{level}`, one thread, texts of {result['text_tokens']} tokens; times faster than "
        "each of the others, measured in the same run. *Folded in torch* is the same algebra over "
        "codes that are float32 already. The peak is that of integer dot products from registers; "
        "pooled codes count as multiplied.",
        _threads(result),
        _latency(result),
        *_costs(result),
        _accuracy(result["accuracy"]),
        _loading(result),
    ]
    return "\n".join([*table(HEAD, rows, left=2), "", " ".join(sentences), source(stored)])


def next_task(stored: dict[str, Any]) -> str:
    """What one more task costs, in a sentence."""
    result = stored["result"]
    (name, share), *others = (
        (name, by_codes["sign"]["share_of_encoder"]["14"])
        for name, by_codes in reversed(result["costs"].items())
    )
    beside = "".join(f", {value:.2%} beside one of {other}'s" for other, value in others)
    return (
        f"**Another task adds {share:.2%} to the encoder's time:** the head of task 14 beside an "
        f"encoder of {name}'s shape{beside}; texts of {result['text_tokens']} tokens, one core."
    )


def elsewhere(stored: dict[str, Any]) -> str:
    """What the same measurements were on another machine, in a sentence."""
    result = stored["result"]
    level, cells = result["level"], result["cells"]

    def span(codes: str, peer: str) -> str:
        return _span(c["times_faster"][level][peer] for c in cells if c["codes"] == codes)

    found = "; ".join(
        f"{span(codes, 'torch_usual')} times as fast as torch's `MultiheadAttention` and "
        f"{span(codes, 'torch_folded')} times as the folded form in torch on {name}"
        for codes, name in (("sign", "signs"), ("uint8", "uint8 codes"))
        if any(cell["codes"] == codes for cell in cells)
    )
    return (
        f"How much faster depends on how well torch uses the processor. On another one, level "
        f"`{level}`, before the latest changes, the heads were {found}.\n{source(stored)}"
    )


def _threads(result: dict[str, Any]) -> str:
    found = result["threads"]
    same = all(row["same_bits"] for row in found)
    return (
        f"{found[0]['threads']} threads are {_span(row['times_faster'] for row in found)} times as "
        f"fast as one{', to the same bits' if same else ', but NOT to the same bits'}."
    )


def _latency(result: dict[str, Any]) -> str:
    parts = []
    for row in result["latency"]:
        if row["codes"] != "sign":
            continue
        native, torch = row["us"]["native"], row["us"]["torch_folded"]
        parts.append(
            f"{_time(native['p50'])} at dim {row['dim']:,} (p95 {_time(native['p95'])}; folded in "
            f"torch {_time(torch['p50'])}, p95 {_time(torch['p95'])})"
        )
    tasks = result["latency"][0]["tasks"]
    return f"One text alone with {tasks} tasks, signs: {' and '.join(parts)}."


def _costs(result: dict[str, Any]) -> list[str]:
    if "costs" not in result:
        return []
    sentences = []
    for name, by_codes in result["costs"].items():
        encoder, signs = result["encoders"][name], by_codes["sign"]
        shares = signs["share_of_encoder"]
        tasks = [count for count in shares if count in ("14", "1000")] or list(shares)
        shown = " and ".join(f"{shares[count]:.3%} for task {int(count):,}" for count in tasks)
        cheaper = signs["cheaper_from_tasks"]
        sentences.append(
            f"Beside an encoder of {name}'s shape ({_time(encoder['us_per_text']['us'])} a text on "
            f"one thread of OpenVINO, {encoder['precision']}) the next task takes {shown}; one "
            "encoder with heads is cheaper than a distilled encoder a task (6 layers, dim "
            f"{result['encoders']['distilled']['dim']}) "
            + ("never." if cheaper is None else f"from {cheaper} task{'s'[: cheaper > 1]} on.")
        )
    return sentences


def _accuracy(accuracy: dict[str, Any]) -> str:
    kind = "shipped heads" if "shipped heads" in accuracy else "random heads"
    heads = accuracy[kind].values()
    texts = sum(head["texts"] for head in heads)
    same = sum(head["texts"] * head["same_top_label"] for head in heads) / texts
    where = f" on {accuracy['texts']}" if "texts" in accuracy else ""
    return (
        f"Probabilities of the {len(heads)} {kind}{where}, {texts:,} texts in all, are within "
        f"{max(head['max_probability_difference'] for head in heads):.2g} of a float64 evaluation "
        f"on the same codes, with the same top label on {same:.2%}."
    )


def _loading(result: dict[str, Any]) -> str:
    parts = [
        f"{row['ms_per_head']:.2g} ms to read and lay out and {row['memory_bytes'] / 1e6:.1f} MB "
        f"at dim {row['dim']:,} (file: {row['file_bytes'] / 1e6:.1f} MB)"
        for row in result["loading"].values()
    ]
    return f"A head takes {', '.join(parts)}."


def _times(value: float) -> str:
    return f"{value:.3g}x" if value < 100 else f"{value:,.0f}x"


def _time(us: float) -> str:
    return f"{us:,.0f} us" if us < 10_000 else f"{us / 1000:,.0f} ms"


def _span(values: Any) -> str:
    found = [f"{value:.2f}" for value in sorted(values)]
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


BLOCKS = (
    Block("next_task", next_task, page="README.md"),
    Block("heads", measured),
    Block("heads_elsewhere", elsewhere, result="heads_xeon"),
)
