"""`bitheads predict`: texts in, every task's answer out, and what it cost."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bitheads.engine.answer_parts import Answer, json_answers
from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.files.compressed import CODECS
from bitheads.engine.predictions import Prediction, Predictions
from bitheads.engine.process.install import how_to_install
from bitheads.engine.process.json_lines import print_json
from bitheads.engine.sessions import BACKENDS, DEVICE_BACKENDS
from bitheads.engine.text_batches import LONG_TEXTS
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP
from bitheads.engine.texts.text_files import FORMATS, SUFFIXES, TextFile, lines_of
from bitheads.engine.types import Text

HEADERS = {("text",), ("text_a", "text_b")}
STANDARD_INPUT = "-"
WILDCARDS = {*"*?["}
TEXT_COLUMNS = 44
REFUSED = "-"
"""In a table, an answer that its head does not stand by."""
NOTHING = "(none)"
"""An answer of no label, or of no span."""
EPILOG = """\
examples:
  bitheads predict --demo
  echo 'What a lovely film.' | bitheads predict --tasks sentiment
  bitheads predict --input reviews.txt --json > predictions.jsonl
  bitheads predict --input reviews.csv --text-column body
  bitheads predict --input 'days/2024-*.jsonl' extra.jsonl --json > predictions.jsonl
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        return exit_code(lambda: _run(options))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(options: argparse.Namespace) -> None:
    texts = _read(options)
    engine = Engine.load(
        options.bundle,
        options.backend,
        options.threads,
        options.precision,
        min_sign_agreement=options.min_sign_agreement,
    )
    if not engine.tasks:
        raise InputError(
            f"bundle {options.bundle} has no heads, so nothing to predict. Train one with "
            "`bitheads train-head` and copy it into the bundle's folder heads."
        )
    predictions = engine.predict(
        texts,
        options.tasks,
        options.max_batch_tokens,
        progress=sys.stderr.isatty(),
        long_texts=options.long_texts,
    )
    if not predictions:
        raise InputError(
            f"--tasks: none of the bundle's heads ({', '.join(sorted(engine.tasks))}) is for such "
            "texts. Give pairs as text_a<TAB>text_b to heads for pairs, single texts to the others."
        )
    if options.json:
        print_json(*_answers(texts, predictions))
    else:
        for line in _table(texts, predictions):
            print(line)
    told = [*_refusals(predictions), *_costs(engine, predictions)]
    print("\n".join(told), file=sys.stderr if options.json else sys.stdout)


def _read(options: argparse.Namespace) -> list[Text]:
    named = options.input or [STANDARD_INPUT]
    if len(named) > 1 and STANDARD_INPUT in named:
        raise InputError(
            f"--input: got {named}, expected files, or '-' for standard input alone. Leave one out."
        )
    path = None if named == [STANDARD_INPUT] else Path(named[0])
    form = options.format or ("lines" if path is None else SUFFIXES.get(path.suffix.lower()))
    if not options.demo and path is not None and not _is_plain_file(named):
        texts = _read_files(options)
    elif options.demo:
        demo = files("bitheads.engine") / "data" / "demo.tsv"
        texts = _of_lines(lines_of(demo.read_bytes()))
    elif form in (None, "lines"):
        if any((options.text_column, options.pair_column, options.quotes)):
            raise InputError(
                "--text-column, --pair-column, --quotes: plain lines have neither columns nor "
                f"quotes. Leave them out, or name a file of another --format: {list(FORMATS)}."
            )
        texts = _of_lines(_read_lines(path))
    elif path is None:
        raise InputError(
            f"--format {form}: standard input is read as plain lines. Write it to a file, and "
            "name that: --input."
        )
    else:
        columns = options.text_column, options.pair_column, None
        texts = [text for _, text in TextFile(path, form, *columns, options.quotes).rows()]
    if not texts:
        raise InputError("no texts to predict. Give one per line, or text_a<TAB>text_b for pairs.")
    return texts


def _is_plain_file(named: Sequence[str]) -> bool:
    """Whether one file is named that can be read as it is, without pyarrow."""
    path = Path(named[0])
    is_file = path.is_file() or not (path.is_dir() or "://" in named[0] or WILDCARDS & {*named[0]})
    return len(named) == 1 and is_file and path.suffix.lower() not in CODECS


def _read_files(options: argparse.Namespace) -> list[Text]:
    """The texts of many files, of folders, globs and URIs, and of what is compressed."""
    if find_spec("pyarrow") is None:
        raise InputError(
            "--input: folders, globs, URIs, several files and compressed ones need pyarrow. Type: "
            f"{how_to_install('store')}"
        )
    from bitheads.engine.texts.text_inputs import open_input

    columns = options.text_column, options.pair_column, None
    found = open_input(options.input, options.format, *columns, options.quotes)
    if found.files[0].kind != "lines":
        return [text for _, text in found.rows()]
    return [text for file in found.files for text in _of_lines(file.lines())]


def _read_lines(path: Path | None) -> list[str]:
    """The lines of a file, or of standard input, where what is not UTF-8 becomes question marks."""
    if path is None:
        return lines_of(sys.stdin.buffer.read(), "replace")
    try:
        return lines_of(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--input {path}: cannot be read ({error}). Expected UTF-8 text, one per line."
        ) from error


def _of_lines(lines: list[str]) -> list[Text]:
    if tuple(lines[0].split("\t")) in HEADERS:
        lines = lines[1:]
    return [_as_text(line) for line in lines if line.strip()]


def _as_text(line: str) -> Text:
    first, _, second = line.partition("\t")
    return (first, second) if second else first


def _answers(texts: Sequence[Text], predictions: Predictions) -> Iterator[dict[str, Any]]:
    by_task = {task: json_answers(prediction) for task, prediction in predictions.items()}
    for row, text in enumerate(texts):
        found = {task: answers[row] for task, answers in by_task.items()}
        yield {"text": text, "tasks": {task: a for task, a in found.items() if a is not None}}


def _table(texts: Sequence[Text], predictions: Predictions) -> Iterator[str]:
    """One column per task where the terminal is wide enough, else a few lines per text, of the
    answers that are accepted."""
    for form, is_pair in (("text", False), ("pair", True)):
        rows = [i for i, text in enumerate(texts) if isinstance(text, tuple) == is_pair]
        tasks = [task for task in predictions if predictions[task].answered[rows].all()]
        if not rows or not tasks:
            continue
        cells = {
            task: _cells([texts[row] for row in rows], predictions[task][np.array(rows)])
            for task in tasks
        }
        widths = {task: max(len(task), *map(len, cells[task])) for task in tasks}
        shown = [_shorten(texts[row]) for row in rows]
        text_width = max(len(form), *map(len, shown))
        if text_width + sum(width + 2 for width in widths.values()) <= _terminal_columns():
            header = [form.ljust(text_width), *(task.ljust(widths[task]) for task in tasks)]
            yield "  ".join(header).rstrip()
            for i, text in enumerate(shown):
                row = [text.ljust(text_width), *(cells[t][i].ljust(widths[t]) for t in tasks)]
                yield "  ".join(row).rstrip()
        else:
            for i, text in enumerate(shown):
                yield text
                left_out = (REFUSED, NOTHING)
                told = [f"{t}: {cells[t][i]}" for t in tasks if cells[t][i] not in left_out]
                yield from _wrapped(told or [REFUSED])
        yield ""


def _cells(texts: Sequence[Text], prediction: Prediction) -> list[str]:
    answers = json_answers(prediction)
    return [
        "" if answer is None else _cell(text, answer)
        for text, answer in zip(texts, answers, strict=True)
    ]


def _cell(text: Text, answer: Answer) -> str:
    """An answer in a table: its parts, or REFUSED if its head does not stand by it."""
    if not answer.get("accepted", True):
        return REFUSED
    if "spans" in answer:
        found = "; ".join(_span(text, span) for span in answer["spans"]) or NOTHING
        at = answer.get("truncated_at")
        return found if at is None else f"{found} (read up to character {at})"
    if "labels" in answer:
        likely = answer["probabilities"]
        return ", ".join(f"{label} {likely[label]:.2f}" for label in answer["labels"]) or NOTHING
    number = f"{answer['value']:.4g}" if "value" in answer else ""
    if "label" not in answer:
        return number
    shown = f"{answer['label']} {answer['probability']:.2f}"
    return f"{shown} ({number})" if number else shown


def _span(text: Text, span: dict[str, Any]) -> str:
    assert isinstance(text, str), "pairs have no spans"
    part = _printable(text[span["start"] : span["end"]])
    return f'{span["label"]} "{part}" {span["probability"]:.2f}'


def _shorten(text: Text) -> str:
    line = _printable(" | ".join(text) if isinstance(text, tuple) else text)
    width = TEXT_COLUMNS * (2 if isinstance(text, tuple) else 1)
    return line if len(line) <= width else line[: width - 1] + "…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _wrapped(items: Iterable[str]) -> Iterator[str]:
    line = "   "
    for item in items:
        if len(line) + len(item) + 3 > _terminal_columns() and line.strip():
            yield line.rstrip()
            line = "   "
        line += f" {item}  "
    yield line.rstrip()


def _terminal_columns() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _refusals(predictions: Predictions) -> Iterator[str]:
    """How many answers there are, and are accepted, if a head can refuse one."""
    if any(prediction.decision.can_refuse for prediction in predictions.values()):
        answers = sum(int(prediction.answered.sum()) for prediction in predictions.values())
        accepted = sum(int(prediction.accepted.sum()) for prediction in predictions.values())
        asked = f"{len(predictions)} heads were asked"
        yield f"{asked}, and stand by {accepted} of their {answers} answers"


def _costs(engine: Engine, predictions: Predictions) -> Iterator[str]:
    stats = predictions.stats
    cut = f", {stats.num_truncated} cut" if stats.num_truncated else ""
    if stats.num_windows > stats.num_texts:
        cut += f", {stats.num_windows} windows"
    padding = stats.num_padding / max(1, stats.num_tokens + stats.num_padding)
    yield (
        f"{stats.num_texts} texts, {stats.num_tokens} tokens{cut}, {len(predictions)} tasks, "
        f"{stats.num_batches} encoder calls ({padding:.1%} padding) on {engine.backend}"
    )
    stages = {
        "tokenize": stats.tokenize_s,
        "encode": stats.encode_s,
        "pack": stats.pack_s,
        "heads": stats.heads_s,
    }
    total_s = sum(stages.values())
    for name, seconds in stages.items():
        yield f"  {name:9s} {1000 * seconds:9.2f} ms  {seconds / total_s:6.1%}"
    manifest, spec = engine.manifest, engine.spec
    tokens_a_text = stats.num_tokens / stats.num_texts
    fp16_bytes = 2 * spec.dim * tokens_a_text
    yield f"stored bytes per text, at {tokens_a_text:.1f} tokens per text:"
    yield f"  {f'these codes ({spec.quantization})':31s} {spec.code_bytes * tokens_a_text:11,.0f}"
    yield f"  {'the pooled layers in fp16':31s} {fp16_bytes:11,.0f}"
    yield (
        f"  {f'all {manifest.encoder.num_layers} layers in fp16':31s} "
        f"{fp16_bytes * manifest.encoder.num_layers:11,.0f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads predict",
        description="One encoder pass over the texts, every task's answer from the packed bits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--bundle",
        type=Path,
        default=Path("bundles/all-MiniLM-L6-v2"),
        metavar="DIR",
        help="made by `bitheads build` (default: %(default)s)",
    )
    add(
        "--input",
        nargs="+",
        action="extend",
        metavar="PATH",
        help=f"texts in UTF-8: a table ({', '.join(s for s in SUFFIXES if s != '.txt')}) with a "
        "column text, or text_a and text_b for pairs, as engine.encode reads it; else one per "
        "line, text_a<TAB>text_b for pairs; several files, folders, globs in quotes and URIs as "
        "`bitheads encode` takes them; '-' or nothing reads lines of standard input",
    )
    add(
        "--format",
        choices=FORMATS,
        help="format of the input (default: what its suffix says, or lines)",
    )
    add("--text-column", help="column of the texts (default: text, or text_a and text_b for pairs)")
    add("--pair-column", help="column of the second texts of pairs")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add("--demo", action="store_true", help="predict the texts that come with bitheads")
    add("--tasks", nargs="+", metavar="TASK", help="which heads to ask (default: all)")
    add(
        "--backend",
        default="auto",
        help=f"{', '.join(BACKENDS)}; on a GPU {', '.join(DEVICE_BACKENDS)}; auto takes the first "
        "that works, a GPU's before a CPU's (default: %(default)s)",
    )
    add(
        "--precision",
        default="auto",
        help="on a CPU auto, fp32, bf16, or of bundles that were built with it int8_dynamic or "
        "int8, the fastest; on a GPU auto, the graph's own, fp16 or fp32, or with tensorrt fp8 or "
        "int8 of bundles built with --plan-precision (default: %(default)s)",
    )
    add(
        "--min-sign-agreement",
        type=float,
        metavar="SHARE",
        help="on a CPU, what --precision auto may take: the fastest precision with at least this "
        "share of signs as torch's in fp32 when the bundle was built, int8 included, such as 0.99 "
        "(default: the fastest floating-point type, which keeps 0.997)",
    )
    add("--threads", type=int, help="processor threads of the encoder (default: all cores)")
    add(
        "--max-batch-tokens",
        type=int,
        help="bound on an encoder call's tokens; lower it to save memory (default: 1024 on a CPU, "
        "up to 16384 on a GPU)",
    )
    add(
        "--long-texts",
        choices=LONG_TEXTS,
        default="cut",
        help="cut texts over the encoder's maximum length, or split them into windows and read all "
        "(default: %(default)s)",
    )
    add("--json", action="store_true", help="one JSON object per text; costs go to standard error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
