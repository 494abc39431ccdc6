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
from bitheads.engine.process.json_lines import print_json
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP
from bitheads.training.heads.config import FitConfig, HeadConfig

EPILOG = """\
example:
  bitheads train-head --bundle bundles/all-MiniLM-L6-v2 --task tone \\
      --train tone/train.tsv --dev tone/dev.tsv --output heads/tone.safetensors

The files have a header, label<TAB>text, or label<TAB>text_a<TAB>text_b for pairs of texts. CSV has
commas instead of tabs.
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
    names = [field.name for field in fields(HeadConfig)]
    files = {name: arguments.pop(name) for name in names}
    files["learning_rates"] = tuple(files["learning_rates"])
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
    say("set   accuracy  macro F1  Matthews  majority class")
    for name in ("dev", "test"):
        if f"{name}_accuracy" in head.metrics:
            accuracy, f1, matthews, majority = (
                head.metrics[f"{name}_{key}"]
                for key in ("accuracy", "macro_f1", "matthews", "majority")
            )
            say(f"{name:4s}  {accuracy:8.4f}  {f1:8.4f}  {matthews:8.4f}  {majority:14.4f}")


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
    add("--train", type=Path, required=True, metavar="FILE", help="TSV, or CSV by its suffix .csv")
    add("--dev", type=Path, required=True, metavar="FILE", help="decides when to stop")
    add("--test", type=Path, metavar="FILE", help="measured once at the end")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
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
        help="stop after this many epochs without a better dev accuracy (default: %(default)s)",
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
