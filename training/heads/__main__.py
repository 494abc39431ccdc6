"""`bitheads train-head`: a task head, trained on the codes it will be served from."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from bitheads.engine import Engine
from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import FoldedHead, check_head_output
from bitheads.engine.kinds import KINDS
from bitheads.engine.process.json_lines import print_json
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS, DecisionOptions

EPILOG = """\
example:
  bitheads train-head --bundle bundles/all-MiniLM-L6-v2 --task tone \\
      --train tone/train.tsv --dev tone/dev.tsv --output heads/tone.safetensors

The files are TSV, CSV, JSON lines or Parquet, by their suffix. Their columns say what is trained:
  label   one of several labels; with --kind ordinal, labels that have an order
  labels  any number of labels of a text, in TSV and CSV joined by |
  score   a number
and text, or text_a and text_b for pairs of texts.

The head also learns which texts are none of its business, from texts of many kinds that come with
bitheads: their answers are not accepted. Name your own with --background.
Copy the head into the bundle's folder `heads`, or pass it to engine.add_head.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: nothing was written")


def _run(options: argparse.Namespace) -> None:
    arguments = vars(options)
    as_json = arguments.pop("json")
    bundle, backend = arguments.pop("bundle"), arguments.pop("backend")
    decision = {field.name: arguments.pop(field.name) for field in fields(DecisionOptions)}
    for name in ("order", "value_range"):
        decision[name] = None if decision[name] is None else tuple(decision[name])
    arguments["decision"] = DecisionOptions(**decision)
    names = [field.name for field in fields(HeadConfig)]
    files = {name: arguments.pop(name) for name in names}
    for name in ("learning_rates", "background"):
        files[name] = tuple(files[name])
    check_head_output(files["task"], files["output"], files["force"])
    loaded = Engine.load(bundle, backend=backend)
    say(f"bundle {bundle}: {loaded.spec}, {loaded.backend}")
    from bitheads.training.heads.train_head import (
        train_head,  # torch takes seconds: after the first checks
    )

    head = train_head(
        loaded,
        HeadConfig(**files),
        FitConfig(**arguments),
        say,
        progress=sys.stderr.isatty(),
    ).head
    _say_metrics(head)
    say(f"wrote {files['output']} ({files['output'].stat().st_size / 1e6:.2f} MB)")
    if as_json:
        print_json({"output": str(files["output"]), "metrics": dict(head.metrics)})


def _say_metrics(head: FoldedHead) -> None:
    names = [name.removeprefix("dev_") for name in head.metrics if name.startswith("dev_")]
    sets = [name for name in ("dev", "test") if f"{name}_{names[0]}" in head.metrics]
    width = max(map(len, names))
    say(" ".join([" " * width, *(f"{name:>8s}" for name in sets)]))
    for name in names:
        values = [head.metrics[f"{of}_{name}"] for of in sets]
        say(" ".join([name.replace("_", " ").ljust(width), *(f"{value:8.4f}" for value in values)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads train-head",
        description="Train a task head on a bundle's packed features. The encoder is not touched.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = FitConfig()
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by `bitheads build`")
    add("--task", required=True, help="name of the task, as callers will ask for it")
    add("--train", type=Path, required=True, metavar="FILE", help="labelled texts, see below")
    add("--dev", type=Path, required=True, metavar="FILE", help="decides when to stop")
    add("--test", type=Path, metavar="FILE", help="measured once at the end")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add("--kind", choices=KINDS, help="of answer (default: what the columns say)")
    add(
        "--order",
        nargs="+",
        metavar="LABEL",
        help="of ordinal labels, from the lowest to the highest",
    )
    add(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="of a score: what is answered is kept within (default: that of the training scores)",
    )
    add("--balanced", action="store_true", help="rare labels weigh as much as frequent ones")
    add(
        "--min-precision",
        type=float,
        metavar="P",
        help="of each of several labels: its threshold is the lowest that has it on dev (default: "
        "the threshold with the best F1)",
    )
    add("--min-recall", type=float, metavar="R", help="likewise, the highest threshold that has it")
    add(
        "--abstain-below",
        type=float,
        metavar="P",
        help="an answer that is less likely is not accepted (default: likelihood does not matter)",
    )
    add(
        "--background",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="texts that are none of the head's business, one a line (.txt), or tables with a "
        "column text, such as other tasks' files (default: those that come with bitheads)",
    )
    add(
        "--no-background",
        dest="reject",
        action="store_false",
        help="train no reject output: the head answers every text",
    )
    add(
        "--keep",
        type=float,
        default=DEFAULT_OPTIONS.keep,
        metavar="SHARE",
        help="of dev texts that are accepted (default: %(default)s)",
    )
    add("--output", type=Path, required=True, metavar="FILE", help="the head, .safetensors")
    add("--force", action="store_true", help="replace the output if it exists")
    add(
        "--position-pooling",
        type=PositionPooling,
        choices=list(PositionPooling),
        default=default.position_pooling,
        help="how a text's tokens become one vector (default: attention, the best in the paper)",
    )
    add("--attention-heads", type=int, help="default: as many as the encoder has")
    add(
        "--learning-rate",
        dest="learning_rates",
        type=float,
        nargs="+",
        default=[default.learning_rate],
        metavar="RATE",
        help=f"peak; of several, the best on dev is kept (default: {default.learning_rate:g})",
    )
    add("--weight-decay", type=float, default=default.weight_decay, help="default: %(default)s")
    add("--dropout", type=float, default=default.dropout, help="default: %(default)s")
    add("--batch-size", type=int, default=default.batch_size, help="default: %(default)s")
    add("--epochs", type=int, default=default.epochs, help="at most (default: %(default)s)")
    add(
        "--patience",
        type=int,
        default=default.patience,
        help="stop after this many epochs without a better dev score (default: %(default)s)",
    )
    add("--seed", type=int, default=default.seed, help="default: %(default)s")
    add(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the weights in the file; float16 halves it (default: %(default)s)",
    )
    add("--backend", default="auto", help="encoder backend (default: %(default)s)")
    add("--json", action="store_true", help="print the metrics as JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
