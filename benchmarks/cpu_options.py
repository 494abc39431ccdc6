"""The options of the routines that measure a CPU, apart, so that --help imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

BUNDLE = Path("bundles/all-MiniLM-L6-v2")
ENCODER = "all-MiniLM-L6-v2"
PLOT = Path("docs/tasks.png")
TABLE3 = Path("training/configs/table3_minilm.toml")
THREADS = 2
MEMORY_TEXTS = 20_000
BACKFILL_TEXTS = 200_000
BACKFILL_ENCODED_TEXTS = 60
LATENCY_CALLS = 500
ENCODER_TEXTS = 700
SEEDED_TEXTS = 60
SERVE_SECONDS = 10.0
OVERLOAD_MINUTES = 30.0
HOST_TEXTS = 5000
HOST_LIBRARY = Path("build/host/libbitheads.so")


def add_storage(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=BUNDLE, metavar="DIR")
    add(
        "--encoder",
        default=ENCODER,
        help="the bundle's source model: all its layers are needed (default: %(default)s)",
    )
    add("--texts", type=int, default=100, help="of 50 tokens (default: %(default)s)")
    _add_quick(parser)


def add_host_parity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=BUNDLE, metavar="DIR")
    add("--data", type=Path, required=True, metavar="DIR", help="folder of */test.tsv")
    add(
        "--texts",
        type=int,
        default=HOST_TEXTS,
        help="single texts, and as many pairs (default: %(default)s)",
    )
    add(
        "--library",
        type=Path,
        default=HOST_LIBRARY,
        metavar="FILE",
        help="made by make host (default: %(default)s)",
    )


def add_tasks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--plot",
        type=Path,
        default=PLOT,
        metavar="FILE",
        help="where the picture goes (default: %(default)s, which the README shows)",
    )
    _add_quick(parser)


def add_memory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_engine(parser)
    add(
        "--texts",
        type=int,
        default=MEMORY_TEXTS,
        help="that are compared with 1,000 (default: %(default)s)",
    )
    _add_quick(parser)


def add_backfill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=BUNDLE, metavar="DIR", help="whose tokenizer is used")
    _add_data(parser)
    add("--texts", type=int, default=BACKFILL_TEXTS, help="of each store (default: %(default)s)")
    add(
        "--encoded-texts",
        type=int,
        default=BACKFILL_ENCODED_TEXTS,
        help="that the encoders read (default: %(default)s)",
    )
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the stores are made, 3 GB (default: the system's for temporary files)",
    )
    _add_quick(parser)


def add_table3(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks")
    add(
        "--output", type=Path, required=True, metavar="DIR", help="of `bitheads table3`: it goes on"
    )
    add("--encoder", default=ENCODER, help="the source model (default: %(default)s)")
    add("--config", type=Path, default=TABLE3, metavar="TOML", help="(default: %(default)s)")
    add("--device", default="auto", help="see `bitheads table3` (default: %(default)s)")
    add("--name", default="minilm", help="of the stored result, table3_NAME (default: %(default)s)")
    add("--report-only", action="store_true", help="train nothing that is not done")


def add_latency(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_engine(parser, data=False)
    add(
        "--calls",
        type=int,
        default=LATENCY_CALLS,
        help="of each contender (default: %(default)s)",
    )
    _add_quick(parser)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_engine(parser)
    add(
        "--encoder",
        default=ENCODER,
        help="the bundle's source model, for the peers (default: %(default)s)",
    )
    add("--texts", type=int, default=ENCODER_TEXTS, help="(default: %(default)s)")
    add(
        "--seeded-texts",
        type=int,
        default=SEEDED_TEXTS,
        help="of those, for the larger encoders of --shapes (default: %(default)s)",
    )
    add(
        "--rounds",
        type=int,
        default=5,
        help="all contenders in turn (default: %(default)s)",
    )
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
        help="also encoders of these shapes with seeded weights, without names RoBERTa-base and "
        "RoBERTa-large; take minutes each",
    )
    _add_quick(parser)


def add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_engine(parser)
    add(
        "--seconds",
        type=float,
        default=SERVE_SECONDS,
        help="of each load (default: %(default)s)",
    )
    add(
        "--host-library",
        type=Path,
        default=HOST_LIBRARY,
        metavar="FILE",
        help="the C++ host, which is measured beside it if it is there (default: %(default)s)",
    )
    _add_quick(parser)


def add_overload(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_engine(parser)
    add("--minutes", type=float, default=OVERLOAD_MINUTES, help="(default: %(default)s)")
    _add_quick(parser)


def _add_engine(parser: argparse.ArgumentParser, data: bool = True) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=BUNDLE, metavar="DIR")
    if data:
        _add_data(parser)
    add("--threads", type=int, default=THREADS, help="of each (default: %(default)s)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of */test.tsv to draw texts from (default: the shipped sentences, one to "
        "twelve joined)",
    )


def _add_quick(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sizes: to see that everything runs")
