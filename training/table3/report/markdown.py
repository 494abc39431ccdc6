"""A grid's table in Markdown, of what `training.table3.report.table` writes as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Json = Mapping[str, Any]


def to_markdown(table: Json) -> str:
    """The accuracies; below, other metrics, comparisons and word senses, where there are some.

    Args:
        table: as `Table.to_json` gives it.
    """
    parts = [_accuracies(table), _others(table), _patterns(table), _senses(table)]
    return "\n\n".join(part for part in parts if part)


def shown(values: Sequence[float] | None, digits: int = 1) -> str:
    """The mean, and the standard deviation if there are several."""
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"


def by_section(
    header: Sequence[str], rows: Sequence[Json], line: Callable[[Json], list[str]]
) -> str:
    """A table of some of a grid's rows.

    Args:
        header: of the columns after the method's name.
        line: a row's cells in them.
    """
    lines = [f"| method | {' | '.join(header)} |", f"|---|{'---:|' * len(header)}"]
    section = ""
    for row in rows:
        if row["section"] != section:
            section = row["section"]
            lines.append(f"| **{section}** |{' |' * len(header)}")
        lines.append(f"| {row['name']} | {' | '.join(line(row))} |")
    return "\n".join(lines)


def _accuracies(table: Json) -> str:
    tasks, rows = table["tasks"], table["rows"]
    seeds = max((len(values) for row in rows for values in row["accuracy"].values()), default=0)
    spread = ", mean and standard deviation over seeds of the heads" if seeds > 1 else ""
    note = (
        f"Test accuracy in percent{spread}; GFLOPs of all {len(tasks)} tasks on a text of "
        f"{table['flops_tokens']} tokens, two a multiply-add."
    )

    def line(row: Json) -> list[str]:
        return [
            *(shown(row["accuracy"].get(task)) for task in tasks),
            shown(row["average"], 2) + ("" if len(row["columns"]) == len(tasks) else " *"),
            f"{row['gflops']:.2f}",
        ]

    text = by_section([*tasks, "average", "GFLOPs"], rows, line)
    if any(len(row["columns"]) < len(tasks) for row in rows):
        text += "\n\n\\* of the tasks shown."
    return f"{note}\n\n{text}"


def _others(table: Json) -> str:
    matthews, f1 = table["matthews"], table["f1"]
    header = [f"{task} Matthews" for task in matthews]
    header += [f"{task} F1 of {label}" for task, label in f1.items()]

    def line(row: Json) -> list[str]:
        values = [row["matthews"].get(task) for task in matthews]
        return [shown(each) for each in (*values, *(row["f1"].get(task) for task in f1))]

    return by_section(header, table["rows"], line) if header else ""


def _patterns(table: Json) -> str:
    if not table["patterns"]:
        return ""
    lines = [
        "Differences in points of accuracy, mean and standard error over tasks, and what the paper "
        "leads to expect (of codes that are not the paper's, what it found of signs). *Shown* and "
        "*refuted* are by two standard errors.",
        "",
        "| comparison | tasks | difference | expected | |",
        "|---|---:|---:|---:|---|",
    ]
    for pattern in table["patterns"]:
        lines.append(
            f"| {pattern['question']} | {pattern['tasks']} | {pattern['points']:+.2f} ± "
            f"{pattern['error']:.2f} | {pattern['expected']} | {pattern['verdict']} |"
        )
    return "\n".join(lines)


def _senses(table: Json) -> str:
    if not table["word_senses"]:
        return ""
    lines = [
        "Word senses, F1 in percent of nearest centroids; the layer is the best on dev.",
        "",
        "| encoder | layer | most frequent sense | float | sign | centred sign |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, result in table["word_senses"].items():
        test = result["test"]
        values = [result["most_frequent"]["test"], test["float"], test["sign"], test["centred"]]
        cells = " | ".join(f"{100 * value:.1f}" for value in values)
        lines.append(f"| {name.replace('_', ' ')} | {result['layer']} | {cells} |")
    return "\n".join(lines)
