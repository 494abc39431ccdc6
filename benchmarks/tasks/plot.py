"""The picture of cost by number of tasks, the same bytes for the same numbers."""

from __future__ import annotations

import io
from typing import Any

from benchmarks.tasks.curves import Curves, cheaper_from
from bitheads.engine.errors import InputError

LABELS = {"gflops": "GFLOPs a text", "us": "milliseconds a text, one core"}
TITLES = {"gflops": "counted, as the paper does", "us": "measured on this engine"}
SCALE = {"gflops": 1.0, "us": 1e-3}
STYLES = {
    "fine-tuned encoder a task": ("#888888", "--"),
    "distilled encoder a task": ("#d06020", "-"),
    "shared encoder, the paper's heads": ("#2060c0", ":"),
    "shared encoder, folded heads": ("#2060c0", "-"),
}


def draw(panels: dict[str, Curves], most_tasks: int) -> bytes:
    """A PNG with a panel for each kind of cost; both axes are logarithmic.

    Raises InputError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "the picture needs matplotlib. Type: pip install -c constraints.txt -e '.[dev]'"
        ) from error
    # The user's own settings would make another picture.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (name, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            _panel(axes, name, curves, most_tasks)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _panel(axes: Any, name: str, curves: Curves, most_tasks: int) -> None:
    tasks = range(1, most_tasks + 1)
    for way, cost in curves.items():
        colour, dashes = STYLES[way]
        axes.plot(
            tasks,
            [SCALE[name] * cost(k) for k in tasks],
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            label=way,
        )
    axes.set(xscale="log", yscale="log", title=TITLES[name])
    axes.set(xlabel="tasks", ylabel=LABELS[name], xlim=(1, most_tasks))
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= most_tasks]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    *_, (last, shared) = curves.items()
    crossing = cheaper_from(shared, curves["distilled encoder a task"], most_tasks)
    if crossing is not None:
        axes.axvline(crossing, color=STYLES[last][0], linewidth=0.8, alpha=0.5)
        axes.annotate(
            f"cheaper from {crossing} on",
            (crossing, 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.legend(fontsize=8, frameon=False)
