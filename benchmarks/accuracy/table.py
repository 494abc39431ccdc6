"""Test accuracy of the shipped heads: by kind of features, and by the encoder's precision."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def headline(stored: dict[str, Any]) -> str:
    """A sentence for the README."""
    results = stored["result"].values()
    signs, float16, last = (
        sum(100 * result[name]["test_accuracy"] for result in results) / len(results)
        for name in ("signs", "float16", "last_layer_mean")
    )
    return (
        f"**A sixteenth of the bytes for {float16 - signs:.1f} points of accuracy:** {signs:.1f}% "
        f"on signs against {float16:.1f}% on the same features in fp16, and {last:.1f}% on the "
        f"usual sentence embedding; the mean of {len(results)} tasks, on a small frozen encoder "
        "that was fine-tuned for none of them."
    )


def measured(stored: dict[str, Any]) -> str:
    """A row per task, and their mean."""
    features = ("signs", "float16", "last_layer_mean")
    backends = ("openvino fp32", "openvino bf16")
    results = stored["result"]
    head = ["task", "data", "majority", "signs", "float16", "last layer, mean", "signs, macro F1"]
    values = []
    for result in results.values():
        same = result["end_to_end"]["backends"]
        values.append(
            [
                *(100 * result[name]["test_accuracy"] for name in features),
                100 * result["signs"]["test_macro_f1"],
                *(100 * same[backend]["same_top_label"] for backend in backends),
            ]
        )
    rows = [
        [task, result["data"], *(f"{value:.1f}" for value in (_majority(result), *found))]
        for (task, result), found in zip(results.items(), values, strict=True)
    ]
    means = [sum(column) / len(column) for column in zip(*values, strict=True)]
    lines = table([*head, "same label, fp32", "same label, bf16"], rows, left=2)
    lines.append(f"| **mean** | | | {' | '.join(f'**{mean:.1f}**' for mean in means)} |")
    return "\n".join([*lines, source(stored)])


def _majority(result: dict[str, Any]) -> float:
    return float(100 * result["signs"]["test_majority"])


def by_precision(stored: dict[str, Any]) -> str:
    """Test accuracy of the shipped heads, and what the last precision costs on average."""
    result = stored["result"]
    names = [name for name in next(iter(result.values())) if name != "texts"]
    rows = [
        [task, f"{found['texts']:,}", *(f"{100 * found[name]:.1f}" for name in names)]
        for task, found in result.items()
    ]
    lines = table(["task", "texts", *names], rows)
    means = [100 * sum(found[name] for found in result.values()) / len(result) for name in names]
    lines.append("| **mean** | | " + " | ".join(f"**{mean:.2f}**" for mean in means) + " |")
    return "\n".join([*lines, source(stored)])


BLOCKS = (
    Block("headline", headline, page="README.md"),
    Block("accuracy", measured),
    Block("precision", by_precision, result="accuracy_by_precision"),
)
