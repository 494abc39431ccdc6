"""`python -m benchmarks`: one name a routine; each stores its result and prints it as JSON."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import cpu_options, gpu_options, heads_options
from bitheads.engine.commands.command_line import exit_code


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: no result was stored")


def _run(options: argparse.Namespace) -> None:
    if options.routine == "tables":
        from benchmarks import tables

        tables.update(options.check)
        return
    # Only the one that is asked for: each imports what it measures, some of which takes seconds.
    import_module(f"benchmarks.{options.routine}_routine").run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    routines = parser.add_subparsers(dest="routine", required=True, metavar="ROUTINE")
    source = {"default": "all-MiniLM-L6-v2", "help": "the source model (default: %(default)s)"}

    routines.add_parser("pack", help="pool_and_pack at every level, beside a copy of its input")

    plan = routines.add_parser("plan", help="time and size of TensorRT-RTX plans; needs no GPU")
    plan.add_argument("--note", default="", help="stored and shown with the result")

    parity = routines.add_parser("parity", help="sign agreement with torch in fp32")
    parity.add_argument("--bundle", type=Path, default=Path("bundles/all-MiniLM-L6-v2"))
    parity.add_argument("--encoder", **source)
    parity.add_argument(
        "--data", type=Path, help="folder of */test.tsv (default: the shipped sentences)"
    )
    parity.add_argument("--texts", type=int, default=1500, help="drawn from --data")

    host_parity = routines.add_parser(
        "host_parity", help="the C++ host beside Python on real texts; no times"
    )
    cpu_options.add_host_parity(host_parity)

    accuracy = routines.add_parser("accuracy", help="train and measure the shipped heads")
    accuracy.add_argument("--encoder", **source)
    accuracy.add_argument("--data", type=Path, required=True, help="a folder a task, of TSVs")
    accuracy.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all")
    accuracy.add_argument(
        "--features",
        nargs="+",
        choices=("signs", "float16", "last_layer_mean"),
        help="default: all",
    )
    accuracy.add_argument(
        "--update", action="store_true", help="keep what is stored of other tasks and features"
    )
    accuracy.add_argument(
        "--shipped",
        action="store_true",
        help="train nothing: only the shipped heads on codes of every precision, int8 too",
    )
    accuracy.add_argument("--write-heads", type=Path, help="where the sign heads go")

    table3 = routines.add_parser(
        "table3", help="the paper's Table 3, and the encoder for all tasks as an engine serves it"
    )
    cpu_options.add_table3(table3)

    heads = routines.add_parser(
        "heads", help="task heads at every level, beside torch, NumPy and the encoder"
    )
    heads_options.add_options(heads)

    storage = routines.add_parser("storage", help="bytes that the features of 50 tokens take")
    cpu_options.add_storage(storage)

    backfill = routines.add_parser(
        "backfill", help="new tasks over a feature store, beside the kernel and re-encoding"
    )
    cpu_options.add_backfill(backfill)

    tasks = routines.add_parser(
        "tasks", help="cost by number of tasks, from what `heads` stored, and a picture of it"
    )
    cpu_options.add_tasks(tasks)

    memory = routines.add_parser("memory", help="peak memory of encoding few and many texts")
    cpu_options.add_memory(memory)

    latency = routines.add_parser(
        "latency", help="one short text with all heads, and the first answer of a process"
    )
    cpu_options.add_latency(latency)

    encoder = routines.add_parser(
        "encoder", help="texts in, codes out, beside other libraries on the same texts"
    )
    cpu_options.add_encoder(encoder)

    serve = routines.add_parser(
        "serve", help="the server under load from another process, beside the bare engine"
    )
    cpu_options.add_serve(serve)

    overload = routines.add_parser(
        "overload", help="the server's memory and answers when asked twice what it can do"
    )
    cpu_options.add_overload(overload)

    routines.add_parser("roofline", help="predicted times on known GPUs; computed, needs no GPU")

    routines.add_parser(
        "device_code", help="registers, spills and load widths of the CUDA kernels; needs no GPU"
    )

    gpu = routines.add_parser(
        "gpu", help="everything that needs a GPU, in one report; see docs/gpu.md"
    )
    gpu_options.add_options(gpu)

    tables = routines.add_parser(
        "tables", help="write the tables of README.md and docs from stored results"
    )
    tables.add_argument("--check", action="store_true", help="only compare")
    return parser


if __name__ == "__main__":
    sys.exit(main())
