"""The page itself: HTML that needs no other file, no script and no network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from bitheads.training.many_heads.report import plots
from bitheads.training.many_heads.report.plots import shortened
from bitheads.training.many_heads.report.task_report import OTHERS, TaskReport, verdict

NAMES = {
    "linear": "linear model",
    "float_head": "head on floats",
    "fine_tuned": "fine-tuned encoder",
}
NOTHING = "\N{EN DASH}"
"""Where there is no number."""
MAX_TEXT = 400
"""Characters of a text that are shown."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing, from nowhere."""


def make_page(
    title: str, about: Mapping[str, str], notes: Sequence[str], tasks: Sequence[TaskReport]
) -> str:
    """The report as HTML.

    Args:
        about: what there is to say of all tasks, such as the bundle: word -> value.
        notes: sentences about how it was measured.
    """
    rows = {task.name: task.to_json() for task in tasks}
    others = [name for name in OTHERS if any(name in row for row in rows.values())]
    style = files("bitheads.training.many_heads.report").joinpath("page.css").read_text()
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            '<p class="dim">'
            + " · ".join(f"{escape(word)} {escape(value)}" for word, value in about.items())
            + "</p>",
            _summary(tasks, rows, others),
            *(f'<p class="dim">{escape(note)}</p>' for note in notes),
            _overview(rows),
            *(_task(number, task, rows[task.name]) for number, task in enumerate(tasks)),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _summary(
    tasks: Sequence[TaskReport], rows: Mapping[str, dict[str, Any]], others: Sequence[str]
) -> str:
    heads = ["task", "head", *(NAMES[name] for name in others), "score", "kind", "examples"]
    heads += ["judged on", "µs per text", "head, MB"]
    text = {"task", "kind", "judged on", "score"}
    cells = [
        f'<th scope="col"{_class("text" if head in text else "")}>{escape(head)}</th>'
        for head in heads
    ]
    lines = [f"<thead><tr>{''.join(cells)}</tr></thead><tbody>"]
    for number, task in enumerate(tasks):
        row = rows[task.name]
        link = f'<a href="#task-{number}">{escape(task.name)}</a>'
        first = f'<th scope="row" class="text">{link}</th>'
        if task.head is None:
            span = f'<td class="text failed" colspan="{len(heads) - 1}">failed, see below</td>'
            lines.append(f"<tr>{first}{span}</tr>")
            continue
        shown = [
            first,
            _score_cell(row["head"], row["interval"]),
        ]
        for name in others:
            if name not in row:
                shown.append(_cell(NOTHING))
                continue
            shown.append(_score_cell(row[name], row[f"{name}_interval"], verdict(row, name)))
        shown += [
            _cell(row["score"], kind="text"),
            _cell(row["kind"].replace("_", " "), note=_labels(row), kind="text"),
            _cell(f"{row['rows']['train']:,}"),
            _cell(row["judged"], note=f"{row['num_judged']:,} texts", kind="text"),
        ]
        cost = row["cost_us"]
        shown.append(_cell(NOTHING if cost is None else f"{cost:.3g}"))
        shown.append(_cell(f"{row['bytes'] / 1e6:.2f}"))
        lines.append(f"<tr>{''.join(shown)}</tr>")
    lines += _means(rows, others)
    lines.append("</tbody>")
    return f'<div class="wide"><table class="summary">{"".join(lines)}</table></div>'


def _means(rows: Mapping[str, dict[str, Any]], others: Sequence[str]) -> Iterator[str]:
    """The mean over the tasks that have all columns, of more than one task."""
    whole = [row for row in rows.values() if "head" in row and all(name in row for name in others)]
    if len(whole) < 2:
        return
    columns = ["head", *others]
    means = [np.mean([row[name] for row in whole]) for name in columns]
    cells = "".join(_cell(f"{100 * mean:.1f}") for mean in means)
    label = f'<th scope="row" class="text">mean of {len(whole)}</th>'
    yield f'<tr>{label}{cells}<td colspan="6"></td></tr>'


def _labels(row: Mapping[str, Any]) -> str:
    """Such as "4 labels, pairs"."""
    count = row["labels"]
    labels = [f"{count} label{'s' if count > 1 else ''}"] if count else []
    form = {"single": [], "pair": ["pairs"]}.get(row["form"], [row["form"].replace("_", " ")])
    return ", ".join([*labels, *form])


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _cell(value: str, note: str = "", kind: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f"<td{_class(kind)}>{escape(value)}{small}</td>"


def _score_cell(value: float, interval: Sequence[float], kind: str = "") -> str:
    """A score in points; `kind` is the verdict: what the head is beside it."""
    low, high = interval
    mark = {"better": " ▾", "worse": " ▴"}.get(kind, "")
    title = {
        "better": ' title="the head is better, and not by chance"',
        "worse": ' title="the head is worse, and not by chance"',
    }.get(kind, "")
    shown = f'<span class="{kind}"{title}>{100 * value:.1f}{mark}</span>'
    return f"<td>{shown}<small>{100 * low:.1f} to {100 * high:.1f}</small></td>"


def _overview(rows: Mapping[str, dict[str, Any]]) -> str:
    there = {name: row for name, row in rows.items() if "head" in row}
    if len(there) < 2:
        return ""
    return plots.overview_plot("overview", [*there], [*there.values()])


def _task(number: int, task: TaskReport, row: Mapping[str, Any]) -> str:
    parts = [
        f'<details id="task-{number}" open><summary><h2>{escape(task.name)}</h2></summary>',
        *(
            f'<p class="failed">{escape(what)} failed: {escape(why)}</p>'
            for what, why in task.failures.items()
        ),
    ]
    if task.head is not None:
        parts += [
            f'<div class="plots">{"".join(_plots(f"task-{number}", task))}</div>',
            _metrics(task.head.values["metrics"]),
            _mistakes(task),
        ]
    parts.append("</details>")
    return "\n".join(parts)


def _plots(name: str, task: TaskReport) -> Iterator[str]:
    assert task.head is not None, "it is there"
    kind, labels = task.kind, task.head.values["labels"]
    arrays = task.head.arrays
    answers, truth = arrays["answers"], arrays["truth"]
    if kind == "token_label":
        right = set(map(tuple, truth.tolist()))
        is_right = np.array([tuple(span) in right for span in answers.tolist()], np.bool_)
        sure = arrays["probabilities"]
        yield plots.spans_plot(f"{name}-confusion", labels, answers, truth)
        if len(answers):
            yield plots.reliability_plot(f"{name}-reliability", sure, is_right, "spans")
            yield plots.spans_precision_recall_plot(f"{name}-precision", sure, is_right, len(truth))
    elif kind == "multi_label":
        sure = arrays["probabilities"]
        yield plots.counts_plot(f"{name}-confusion", labels, answers, truth)
        yield plots.reliability_plot(
            f"{name}-reliability", sure.ravel(), truth.ravel(), "pairs of text and label"
        )
        yield plots.precision_recall_plot(f"{name}-precision", labels, sure, truth)
    elif kind == "regression":
        yield plots.scatter_plot(f"{name}-scatter", answers, truth)
    else:
        best, sure = arrays["best"], arrays["probabilities"]
        yield plots.confusion_plot(f"{name}-confusion", labels, best, truth)
        of_best = sure[np.arange(len(best)), best]
        yield plots.reliability_plot(f"{name}-reliability", of_best, best == truth, "answers")
        has = np.eye(len(labels), dtype=np.bool_)[truth]
        yield plots.precision_recall_plot(f"{name}-precision", labels, sure, has)
    if task.curve:
        sizes, heads, linear = (
            [result.values[key] for result in task.curve] for key in ("size", "head", "linear")
        )
        yield plots.learning_curve_plot(f"{name}-curve", kind, sizes, heads, linear)


def _metrics(metrics: Mapping[str, float]) -> str:
    """All that was measured of a head, a column per set."""
    sets = list(dict.fromkeys(name.partition("_")[0] for name in metrics))
    names = list(dict.fromkeys(name.partition("_")[2] for name in metrics))
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(part)}</th>' for part in sets)
    lines = [
        f'<tr><th scope="row" class="text">{escape(name.replace("_", " "))}</th>'
        + "".join(
            _cell(NOTHING if value is None else f"{value:.4f}")
            for value in (metrics.get(f"{part}_{name}") for part in sets)
        )
        + "</tr>"
        for name in names
    ]
    table = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return (
        "<details><summary>all that was measured</summary>"
        f'<div class="wide"><table>{table}</table></div></details>'
    )


def _mistakes(task: TaskReport) -> str:
    assert task.head is not None, "it is there"
    found = task.head.values["mistakes"]
    if not found:
        return "<h3>No mistakes</h3>"
    is_value = task.kind == "regression"
    title = "Farthest off" if is_value else "Mistakes that it was surest of"
    sure = "off by" if is_value else "sure"
    head = "".join(
        f'<th scope="col" class="{kind}">{name}</th>'
        for name, kind in (("text", "text"), ("answer", "text"), ("truth", "text"), (sure, ""))
    )
    lines = []
    for mistake in found:
        texts = itertools.chain.from_iterable(
            (shortened(text, MAX_TEXT), "\n—\n") for text in mistake["text"]
        )
        said = "".join([*texts][:-1])
        value = f"{mistake['sure']:.3g}" if is_value else f"{100 * mistake['sure']:.1f}%"
        lines.append(
            f'<tr><td class="text said">{escape(said)}</td>'
            f'<td class="text">{escape(shortened(mistake["answer"], 100))}</td>'
            f'<td class="text">{escape(shortened(mistake["truth"], 100))}</td>{_cell(value)}</tr>'
        )
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<h3>{title}</h3><div class="wide"><table class="mistakes">{table}</table></div>'
