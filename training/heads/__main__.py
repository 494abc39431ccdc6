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
from bitheads.training.heads.config import FIT_OF_WORDS, FitConfig, HeadConfig
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS, DecisionOptions

EPILOG = """\
example:
  bitheads train-head --bundle bundles/all-MiniLM-L6-v2 --task tone \\
      --train tone/train.tsv --dev tone/dev.tsv --output heads/tone.safetensors

The files are TSV, CSV, JSON lines or Parquet, by their suffix. Their columns say what is trained:
  label   one of several labels; with --kind ordinal, labels that have an order
  labels  any number of labels of a text, in TSV and CSV joined by |
  score   a number
  spans   parts of a text, each {"start": 0, "end": 4, "label": "PERSON"}, from one word to another,
          counted in characters; in JSON lines and Parquet
and text, or text_a and text_b for pairs of texts, which have no spans.

The head also learns which texts are none of its business, from texts of many kinds that come with
bitheads: their answers are not accepted. Name your own with --background. One of spans does not:
most texts have none.
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
    said = {name: value for name, value in arguments.items() if value is not None}
    FitConfig(**said)  # its checks
    check_head_output(files["task"], files["output"], files["force"])
    loaded = Engine.load(bundle, backend=backend)
    say(f"bundle {bundle}: {loaded.spec}, {loaded.backend}")
    from bitheads.training.heads.train_head import (
        train_head,  # torch takes seconds: after the first checks
    )

    head = train_head(
        loaded,
        HeadConfig(**files),
        said,
        say,
        progress=sys.stderr.isatty(),
    ).head
    _say_metrics(head)
    say(f"wrote {files['output']} ({files['output'].stat().st_size / 1e6:.2f} MB)")
    if as_json:
        print_json({"output": str(files["output"]), "metrics": dict(head.metrics)})


def _say_metrics(head: FoldedHead) -> None:
    sets, names = (
        list(dict.fromkeys(part)) for part in zip(*map(_parts, head.metrics), strict=True)
    )
    width = max(map(len, names))
    say(" ".join([" " * width, *(f"{name:>8s}" for name in sets)]))
    for name in names:
        values = [head.metrics.get(f"{of}_{name}") for of in sets]  # a label may not occur in all
        shown = ["       -" if value is None else f"{value:8.4f}" for value in values]
        say(" ".join([name.replace("_", " ").ljust(width), *shown]))


def _parts(metric: str) -> tuple[str, str]:
    """Such as "dev" and "accuracy"."""
    of, _, name = metric.partition("_")
    return of, name


def _default(setting: str) -> str:
    """Of a FitConfig."""
    usual, of_words = (getattr(config, setting) for config in (FitConfig(), FIT_OF_WORDS))
    return f"default: {usual:g}" + ("" if of_words == usual else f", of spans {of_words:g}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads train-head",
        description="Train a task head on a bundle's packed features. The encoder is not touched.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by `bitheads build`")
    add("--task", required=True, help="name of the task, as callers will ask for it")
    add("--train", type=Path, required=True, metavar="FILE", help="labelled texts, see below")
    add(
        "--dev",
        type=Path,
        metavar="FILE",
        help="decides when to stop (default: parts of the training texts, held back in turn)",
    )
    add("--test", type=Path, metavar="FILE", help="measured once at the end")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add("--kind", choices=KINDS, help="of answer (default: what the columns say)")
    add(
        "--form",
        choices=("pair", "two_texts"),
        help="of heads of pairs: the encoder reads both texts together, or each by itself "
        "(default: the better on dev)",
    )
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
        help="how a text's tokens, or for spans a word's, become one vector (default: attention, "
        "the best in the paper; for spans mean)",
    )
    add("--attention-heads", type=int, help="default: as many as the encoder has")
    add(
        "--learning-rate",
        dest="learning_rates",
        type=float,
        nargs="+",
        default=[],
        metavar="RATE",
        help=f"peak; of several, the best on dev is kept ({_default('learning_rate')})",
    )
    add("--weight-decay", type=float, help=_default("weight_decay"))
    add("--dropout", type=float, help=_default("dropout"))
    add("--batch-size", type=int, help=_default("batch_size"))
    add("--epochs", type=int, help=f"at most ({_default('epochs')})")
    add(
        "--patience",
        type=int,
        help=f"stop after this many epochs without a better dev score ({_default('patience')})",
    )
    add("--seed", type=int, help=_default("seed"))
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
