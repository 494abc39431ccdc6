"""The options of `python -m benchmarks encoder`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = (
    "quick",
    "data",
    "texts",
    "seeded_texts",
    "only",
    "peers_python",
    "threads",
    "shapes",
    "keep",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_data(parser)
    options.add_threads(parser)
    options.add_encoder(parser, "the bundle's source model, for the peers")
    add = parser.add_argument
    add("--texts", type=int, default=700, help="(default: %(default)s)")
    add(
        "--seeded-texts",
        type=int,
        default=60,
        help="of those, for the larger encoders of --shapes (default: %(default)s)",
    )
    add("--rounds", type=int, default=5, help="all contenders in turn (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        metavar="NAME",
        help="beginnings of others' names, such as CTranslate2; without `transformers` no signs "
        "are compared, without `matmul` there is no peak (default: all)",
    )
    add(
        "--peers-python",
        type=Path,
        metavar="PYTHON",
        help="interpreter of an environment with sentence-transformers[onnx,openvino], whose "
        "transformers is older than this project's (default: this interpreter)",
    )
    add(
        "--shapes",
        nargs="*",
        metavar="NAME",
        help="also encoders of these shapes with seeded weights, without names all there "
        "are; take minutes each",
    )
    add(
        "--keep",
        action="store_true",
        help="keep what is stored of other encoders: only the --shapes are measured",
    )
    options.add_quick(parser)
