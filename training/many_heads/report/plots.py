"""What the report plots of one task."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from bitheads.training.many_heads.report.svg import HEAD, INK, LINEAR, OTHER, figure
from bitheads.training.many_heads.scores import SCORE_NAMES, Answers
from bitheads.training.metrics import average_precision, confusion

MAX_NAMED = 30
"""Labels up to which a confusion matrix names each."""
MAX_NUMBERS = 12
"""Labels up to which it has each number."""
BINS = 10
MAX_CURVES = 6
MAX_POINTS = 200
MAX_SCATTERED = 1000

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

COLOURS = (HEAD, LINEAR, "#10b981", "#a855f7", "#ef4444", "#eab308")


def confusion_plot(name: str, labels: Sequence[str], answers: Answers, truth: Answers) -> str:
    """How often each label was answered for each, of one label; rows are the truth."""
    counts = confusion(truth, answers, len(labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(labels)

    def draw(axes: Any) -> None:
        rgba = np.zeros((size, size, 4))
        rgba[..., :3] = [int(HEAD[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        rgba[..., 3] = shares
        axes.imshow(rgba, interpolation="nearest", aspect="auto")
        axes.grid(False)
        axes.set(xlabel="answer", ylabel="truth")
        if size <= MAX_NAMED:
            shown = [shortened(label, 18) for label in labels]
            axes.set_xticks(range(size), shown, rotation=90 if size > 3 else 0)
            axes.set_yticks(range(size), shown)
        if size <= MAX_NUMBERS:
            for row, column in np.argwhere(counts > 0):
                axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8)

    side = max(3.1, 1.6 + 0.19 * size) if size <= MAX_NAMED else 3.9
    caption = "Confusion: how often each label was answered, of texts of each"
    if size > MAX_NAMED:
        caption += f". Most often confused: {_most_confused(labels, counts)}"
    return figure(name, caption, draw, max(4.2, side), side)


def _most_confused(labels: Sequence[str], counts: NDArray[np.int64]) -> str:
    off = counts - np.diag(np.diag(counts))
    worst = np.argsort(-off, axis=None, kind="stable")[:8]
    pairs = [(int(at) // len(labels), int(at) % len(labels)) for at in worst]
    return ", ".join(
        f"{escape(labels[row])} as {escape(labels[column])} ({off[row, column]})"
        for row, column in pairs
        if off[row, column]
    )


def counts_plot(name: str, labels: Sequence[str], answers: Bools, truth: Bools) -> str:
    """Of several labels, how often each was found, missed, and found where it is not."""
    order = np.argsort(-truth.sum(axis=0), kind="stable")[:MAX_NAMED]
    hits, missed = (answers & truth).sum(axis=0)[order], (~answers & truth).sum(axis=0)[order]
    wrong = (answers & ~truth).sum(axis=0)[order]
    return _bars(
        name,
        "Confusion: how often each label was right, missed, and said of texts that do not have it"
        + _left_out(len(labels)),
        [labels[i] for i in order],
        hits,
        missed,
        wrong,
    )


def spans_plot(name: str, labels: Sequence[str], answers: Answers, truth: Answers) -> str:
    """The same of spans."""
    right = np.array(
        sorted(set(map(tuple, answers.tolist())) & set(map(tuple, truth.tolist()))), np.int64
    ).reshape(-1, 4)
    each = [np.bincount(spans[:, 3], minlength=len(labels)) for spans in (right, truth, answers)]
    order = np.argsort(-each[1], kind="stable")[:MAX_NAMED]
    hits = each[0][order]
    return _bars(
        name,
        "Confusion: how many spans of each label were right, missed, and found where they are not"
        + _left_out(len(labels)),
        [labels[i] for i in order],
        hits,
        each[1][order] - hits,
        each[2][order] - hits,
    )


def _left_out(count: int) -> str:
    return f"; the {MAX_NAMED} most frequent of {count} labels" if count > MAX_NAMED else ""


def _bars(
    name: str,
    caption: str,
    labels: Sequence[str],
    hits: NDArray[np.int64],
    missed: NDArray[np.int64],
    wrong: NDArray[np.int64],
) -> str:
    def draw(axes: Any) -> None:
        rows = np.arange(len(labels))
        axes.barh(rows, hits, color=HEAD, label="right")
        axes.barh(rows, missed, left=hits, color=OTHER, label="missed")
        axes.barh(rows, -wrong, color=LINEAR, label="wrong")
        axes.set_yticks(rows, [shortened(label, 18) for label in labels])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.legend(loc="lower right", fontsize=8)

    return figure(name, caption, draw, 4.2, max(2.2, 0.8 + 0.2 * len(labels)))


def scatter_plot(name: str, answers: Floats, truth: Floats, labels: Sequence[str] = ()) -> str:
    """Answers of a value beside the truth."""
    random = np.random.default_rng(0)
    rows = np.sort(random.permutation(len(truth))[:MAX_SCATTERED])

    def draw(axes: Any) -> None:
        low, high = float(min(answers.min(), truth.min())), float(max(answers.max(), truth.max()))
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
        axes.plot(truth[rows], answers[rows], "o", markersize=2.5, alpha=0.5, color=HEAD)
        axes.set(xlabel="truth", ylabel="answer")

    left_out = f", {MAX_SCATTERED} of {len(truth)}" if len(truth) > MAX_SCATTERED else ""
    return figure(name, f"Answers beside the truth{left_out}; the line is where they agree", draw)


def reliability_plot(name: str, sure: Floats, is_right: Bools, what: str) -> str:
    """How often answers are right that the head was so sure of.

    Args:
        what: an answer is, such as "answers".
    """
    bin_of = np.minimum((sure.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bin_of, minlength=BINS)
    there = counts > 0
    said = np.bincount(bin_of, sure, BINS)[there] / counts[there]
    right = np.bincount(bin_of, is_right, BINS)[there] / counts[there]
    error = float(np.abs(np.bincount(bin_of, sure - is_right, BINS)).sum() / max(1, len(sure)))

    def draw(axes: Any) -> None:
        shares = counts / max(1, counts.max())
        edges = (np.arange(BINS) + 0.5) / BINS
        axes.bar(edges, shares * 0.25, 0.9 / BINS, color=OTHER, alpha=0.4, label="how many")
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        axes.plot(said, right, "o-", color=HEAD, markersize=4, label="right")
        axes.set(xlabel="probability that was said", ylabel="share that is right")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left", fontsize=8)

    caption = (
        f"Reliability of {len(sure)} {what}: on the line, probabilities are what they say; they "
        f"are off by {error:.3f} on average"
    )
    return figure(name, caption, draw)


def precision_recall_plot(
    name: str, labels: Sequence[str], probabilities: Floats, has: Bools
) -> str:
    """Precision by recall of each label, as its threshold moves.

    Args:
        probabilities: of each label, [texts, labels].
        has: which labels a text has, bool [texts, labels].
    """
    counts = has.sum(axis=0)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    if len(labels) == 2 and len(order) == 2:
        order = order[-1:]  # the rarer one: the other's curve says the same
    elif len(order) > MAX_CURVES:
        order = order[:MAX_CURVES]

    def draw(axes: Any) -> None:
        if len(labels) > 2:
            curve = _precision_recall(probabilities.ravel(), has.ravel())
            axes.plot(*curve, color=INK, linewidth=1.6, linestyle="--", label="all labels")
        for colour, label in zip(COLOURS, order, strict=False):
            found = average_precision(probabilities[:, label], has[:, label])
            shown = f"{shortened(labels[label], 18)} ({found:.2f})"
            axes.plot(
                *_precision_recall(probabilities[:, label], has[:, label]),
                color=colour,
                label=shown,
            )
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.16), ncols=2, fontsize=8)

    left_out = f"; the {MAX_CURVES} most frequent of {len(labels)} labels" * (
        len(labels) > MAX_CURVES
    )
    caption = f"Precision and recall of a label, with its average precision{left_out}"
    return figure(name, caption, draw, height=3.1 + 0.09 * len(order))


def spans_precision_recall_plot(name: str, sure: Floats, is_right: Bools, num_there: int) -> str:
    """Precision by recall of spans, the surest first."""
    order = np.argsort(-sure, kind="stable")
    hits = np.cumsum(is_right[order])
    recall, precision = hits / max(1, num_there), hits / np.arange(1, len(hits) + 1)

    def draw(axes: Any) -> None:
        axes.plot(*_thinned(recall, precision), color=HEAD)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))

    return figure(name, "Precision and recall of spans, the surest first", draw)


def _precision_recall(sure: Floats, has: Bools) -> tuple[Floats, Floats]:
    precision, recall, _ = precision_recall_curve(has, sure)
    return _thinned(recall, precision)


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Some of the points of a curve, evenly along x, its ends among them."""
    if len(x) <= MAX_POINTS:
        return x, y
    order = np.argsort(x, kind="stable")
    wanted = np.linspace(x[order[0]], x[order[-1]], MAX_POINTS)
    at = np.unique(order[np.searchsorted(x[order], wanted).clip(0, len(x) - 1)])
    kept = np.union1d(at, [0, len(x) - 1])
    return x[kept], y[kept]


def learning_curve_plot(
    name: str, kind: str, sizes: Sequence[int], heads: Sequence[float], linear: Sequence[float]
) -> str:
    """Scores by the number of examples that heads and linear models learned from."""

    def draw(axes: Any) -> None:
        axes.plot(sizes, [100 * x for x in heads], "o-", color=HEAD, markersize=4, label="head")
        axes.plot(
            sizes, [100 * x for x in linear], "s--", color=LINEAR, markersize=4, label="linear"
        )
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        axes.minorticks_off()
        axes.set(xlabel="training examples", ylabel=SCORE_NAMES[kind])
        axes.legend(loc="lower right", fontsize=8)

    return figure(name, "Learning curve: what more examples bring", draw)


def overview_plot(name: str, tasks: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """The scores of all tasks with their intervals, heads beside linear models.

    Args:
        rows: of each task "head" and "interval", and "linear" if there is one.
    """

    def draw(axes: Any) -> None:
        places = np.arange(len(tasks))
        for place, row in zip(places, rows, strict=True):
            low, high = row["interval"]
            axes.plot([100 * low, 100 * high], [place, place], color=HEAD, linewidth=2.5, alpha=0.5)
        heads = [100 * row["head"] for row in rows]
        axes.plot(heads, places, "o", color=HEAD, markersize=6, label="head on signs")
        for key, label, mark, colour in (
            ("linear", "linear model", "s", LINEAR),
            ("float_head", "head on floats", "^", "#10b981"),
            ("fine_tuned", "fine-tuned encoder", "D", "#a855f7"),
        ):
            found = [
                (100 * row[key], place)
                for place, row in zip(places, rows, strict=True)
                if row.get(key) is not None
            ]
            if found:
                axes.plot(*zip(*found, strict=True), mark, color=colour, markersize=4, label=label)
        axes.set_yticks(places, [shortened(task, 22) for task in tasks])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, fontsize=8)

    return figure(
        name,
        "All tasks: each kind's score, and the interval of the head's",
        draw,
        4.6,
        max(2.4, 1.3 + 0.28 * len(tasks)),
    )


def shortened(text: str, most: int) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
