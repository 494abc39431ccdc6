"""Tables of the shipped heads and those of other kinds: by kind of features, by the encoder's
precision, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.accuracy.options import FEATURES_OF_KINDS
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

FEATURES = ("signs", "no_reject", "float16", "last_layer_mean")
HEADS = ("signs", "no reject output", "float16", "last layer, mean")
BACKENDS = ("openvino fp32", "openvino bf16")


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
    """A row per task, and their mean; what was not measured is left empty."""
    results = stored["result"]
    values = [
        [
            *(result[name]["test_accuracy"] for name in FEATURES),
            result["signs"]["test_macro_f1"],
            *(_same_label(result, backend) for backend in BACKENDS),
        ]
        for result in results.values()
    ]
    rows = [
        [task, result["data"], *map(_percent, (result["signs"]["test_majority"], *found))]
        for (task, result), found in zip(results.items(), values, strict=True)
    ]
    means = [_percent(_mean(column)) for column in zip(*values, strict=True)]
    head = ["task", "data", "majority", *HEADS, "signs, macro F1"]
    lines = table([*head, "same label, fp32", "same label, bf16"], rows, left=2)
    lines.append(f"| **mean** | | | {' | '.join(f'**{mean}**' for mean in means)} |")
    return "\n".join([*lines, source(stored)])


def _same_label(result: dict[str, Any], backend: str) -> float | None:
    found = result.get("end_to_end")
    return None if found is None else float(found["backends"][backend]["same_top_label"])


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


FIGURES = {
    "multi_label": ("micro_f1", "macro_f1", "micro_average_precision"),
    "ordinal": ("mean_absolute_error", "accuracy", "spearman"),
    "regression": ("spearman", "pearson"),
    "token_label": ("span_f1", "span_macro_f1", "span_f1_any_label"),
}
"""What is shown of a kind: metrics of its objective, of which most linear models have all."""


def of_kinds(stored: dict[str, Any]) -> str:
    """A row per task and figure; what was not measured is left empty."""
    rows = []
    for task, found in stored["result"].items():
        for place, figure in enumerate(FIGURES[found["kind"]]):
            values = [found.get(feature, {}).get(f"test_{figure}") for feature in FEATURES_OF_KINDS]
            name = figure.replace("_", " ").replace("f1", "F1")
            first = [task, found["data"], f"`{found['kind']}`"] if place == 0 else [""] * 3
            rows.append([*first, name, *map(_number, values)])
    lines = table(["head", "data", "kind", "figure", *FEATURES_OF_KINDS], rows, left=4)
    return "\n".join([*lines, source(stored)])


def rejection(stored: dict[str, Any]) -> str:
    """A row per shipped head, their means, and the questions that are near those of `intent`."""
    rows, values = [], []
    for task, found in stored["result"].items():
        sources = found["sources"]
        aurocs = {name: told["auroc"] for name, told in sources.items()}
        least = min(aurocs, key=aurocs.__getitem__)
        auroc = _mean(aurocs.values())
        wrongly = _mean(told["accepted"] for told in sources.values())
        ece = found.get("ece")
        values.append((ece, found["accepted"], auroc, wrongly))
        shown = [_number(ece), _percent(found["accepted"]), _number(auroc)]
        shown += [f"{least} {aurocs[least]:.3f}", _percent(wrongly), f"{len(sources)}"]
        rows.append([task, *shown])
    head = ["head", "ECE", "own accepted", "AUROC", "least AUROC", "others accepted", "sources"]
    lines = table(head, rows)
    ece, kept, auroc, wrongly = (_mean(column) for column in zip(*values, strict=True))
    lines.append(
        f"| **mean** | **{ece:.3f}** | **{_percent(kept)}** | **{auroc:.3f}** | | "
        f"**{_percent(wrongly)}** | |"
    )
    near = stored["result"]["intent"]["out_of_scope"]
    lines.append(
        f"\n{near['texts']} questions that are written like those of `intent`, and ask for none of "
        f"its intents: AUROC {near['auroc']:.3f} (of its highest logit alone "
        f"{near['auroc_of_top_logit']:.3f}, of its highest probability "
        f"{near['auroc_of_top_probability']:.3f}); {_percent(near['accepted'])}% are accepted."
    )
    return "\n".join([*lines, source(stored)])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


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
    Block("kinds", of_kinds, result="accuracy_of_kinds"),
    Block("rejection", rejection, result="rejection"),
    Block("precision", by_precision, result="accuracy_by_precision"),
)
