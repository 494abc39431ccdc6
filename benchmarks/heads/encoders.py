"""What encoders cost, beside heads: the one that tasks share, and a smaller one for each task."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contenders.packing import PackCall
from benchmarks.figures.rounding import rounded
from benchmarks.figures.turns import Contender, in_turn
from benchmarks.heads.cases import Settings
from benchmarks.inputs.shapes import CLASSES, TEXT_TOKENS, Shape, random_encoder
from bitheads.engine import bundle
from bitheads.engine.features.spec import LayerPooling, PositionPooling
from bitheads.engine.sessions import EncoderSession, open_session
from bitheads.engine.types import TokenBatch
from bitheads.export.config import choose_layers
from bitheads.export.onnx_graph import export_graph
from bitheads.training.heads.task_head import TaskHead

Say = Callable[[str], None]
DISTILLED = "distilled"
GRAPH_PRECISION = "fp16"


def measure(settings: Settings, say: Say) -> dict[str, Any]:
    """Microseconds per text of every encoder, timed in turn, on one thread of OpenVINO.

    Weights are random. The shared encoders write the layers that are pooled, the distilled one its
    last. Packing is `pool_and_pack`; the distilled encoder's head is the usual one of a fine-tuned
    encoder, dense and tanh over the first token, in torch.
    """
    shapes = {**settings.encoders, DISTILLED: settings.distilled}
    sessions, contenders = {}, {}
    for name, shape in shapes.items():
        say(f"encoder {name}: exporting")
        pooling = LayerPooling.LAST if name == DISTILLED else LayerPooling.MEAN
        layers = choose_layers(None, shape.layers, pooling)
        sessions[name] = session = _open(name, shape, layers)
        batch = _batch(shape, settings.encoder_rows)
        rows = settings.encoder_rows
        contenders[name] = Contender(partial(session.run, batch), rows)
        after = (
            _cls_head(shape, rows)
            if name == DISTILLED
            else PackCall([layer.copy() for layer in session.run(batch)])
        )
        contenders[f"after {name}"] = Contender(after, rows)
    say("encoders: timing")
    samples = in_turn(contenders, settings.rounds, settings.budget_s)
    return {
        name: {
            "dim": shape.dim,
            "layers": shape.layers,
            "backend": sessions[name].backend,
            "precision": sessions[name].precision,
            "graph_precision": GRAPH_PRECISION,
            "texts_a_call": settings.encoder_rows,
            "text_tokens": TEXT_TOKENS,
            "us_per_text": samples.summary(name),
            "own_head_us" if name == DISTILLED else "packing_us": rounded(
                samples.median_us(f"after {name}")
            ),
        }
        for name, shape in shapes.items()
    }


def costs(encoders: dict[str, Any], cells: Sequence[dict[str, Any]], level: str) -> dict[str, Any]:
    """One more task as a share of the encoder, and from how many tasks sharing it is cheaper.

    Args:
        encoders: of `measure`.
        cells: of benchmarks.heads.speed.measure.
        level: of the native kernels.
    """
    distilled = encoders[DISTILLED]
    distilled_us = distilled["us_per_text"]["us"] + distilled["own_head_us"]
    found: dict[str, Any] = {}
    for name, encoder in encoders.items():
        if name == DISTILLED:
            continue
        shared_us = encoder["us_per_text"]["us"] + encoder["packing_us"]
        for codes in dict.fromkeys(cell["codes"] for cell in cells if cell["shape"] == name):
            us_of = {
                cell["tasks"]: cell["us_per_text_and_task"][level]["us"] * cell["tasks"]
                for cell in cells
                if (cell["shape"], cell["codes"]) == (name, codes)
            }
            marginal = {tasks: us for tasks, us in marginal_us(us_of).items() if tasks > 1}
            few_us = next(iter(marginal.values()))
            found.setdefault(name, {})[codes] = {
                "us_of_the_next_task": {str(k): rounded(us) for k, us in marginal.items()},
                "share_of_encoder": {
                    str(k): rounded(us / encoder["us_per_text"]["us"]) for k, us in marginal.items()
                },
                "cheaper_from_tasks": break_even(shared_us, few_us, distilled_us),
            }
    return found


def marginal_us(us_of: dict[int, float]) -> dict[int, float]:
    """Number of tasks -> what each task cost that was added since the number before.

    Args:
        us_of: number of tasks -> microseconds per text for all of them.
    """
    counts = sorted(us_of)
    return {more: (us_of[more] - us_of[fewer]) / (more - fewer) for fewer, more in pairwise(counts)}


def break_even(shared_us: float, head_us: float, own_us: float) -> int | None:
    """The least k with shared_us + k head_us < k own_us, or None if there is none.

    Args:
        shared_us: the encoder that all tasks share, per text.
        head_us: one task's head on it.
        own_us: an encoder of a task's own, with its head.
    """
    if own_us <= head_us:
        return None
    return math.floor(shared_us / (own_us - head_us)) + 1


def _open(name: str, shape: Shape, layers: tuple[int, ...]) -> EncoderSession:
    encoder = random_encoder(name, shape)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / bundle.GRAPH
        export_graph(encoder, layers, GRAPH_PRECISION, graph)
        outputs = [f"hidden_{layer}" for layer in layers]
        return open_session(graph, outputs, "openvino", threads=1)


def _batch(shape: Shape, rows: int) -> TokenBatch:
    rng = np.random.default_rng(3)
    ids = rng.integers(10, shape.vocab_size, (rows, TEXT_TOKENS), np.int64)
    lengths = np.full(rows, TEXT_TOKENS, np.int64)
    return TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids), lengths)


def _cls_head(shape: Shape, rows: int) -> Callable[[], object]:
    torch.manual_seed(0)
    head = TaskHead(shape.dim, CLASSES, shape.attention_heads, PositionPooling.CLS).eval()
    features = torch.randn(rows, TEXT_TOKENS, shape.dim)
    mask = torch.ones(rows, TEXT_TOKENS, dtype=torch.bool)

    @torch.inference_mode()
    def call() -> None:
        head(features, mask)

    return call
