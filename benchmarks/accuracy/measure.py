"""Every shipped head on its test file: on signs, on float16 features, on the last layer's mean.

The sign heads that are trained here are those that are shipped (`--write-heads`). Each is also
checked end to end against a computation that shares no code with the engine: transformers' hidden
states in fp32, NumPy's mean and sign, torch's own nn.MultiheadAttention.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from benchmarks import record
from benchmarks.accuracy import precisions
from benchmarks.accuracy.options import FEATURES
from benchmarks.accuracy.tasks import TASKS, background_of, require_data
from benchmarks.figures.rounding import rounded
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.features.spec import LayerPooling, PositionPooling, Quantization
from bitheads.engine.heads.head_file import read_head
from bitheads.engine.types import Text
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.encoder import find_encoder
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.heads.train_head import train_head

LEARNING_RATES = (3e-4, 1e-3)
"""Rates of which the better on dev is kept, for each kind of features: they differ in scale."""

CHECKED_TEXTS = 500


def run(options: argparse.Namespace) -> None:
    """Trains and measures the heads of TASKS on three feature specs; see the module's docstring."""
    require_data(options.data, "train", "dev", "test")
    tasks = {task: TASKS[task] for task in options.tasks or TASKS}
    with tempfile.TemporaryDirectory() as scratch:
        if options.shipped:
            _write_precisions(
                precisions.shipped(options.encoder, options.data, tasks, Path(scratch), say)
            )
            return
        variants = _variants(options.encoder, options.features or FEATURES, Path(scratch))
        result: dict[str, Any] = record.read("accuracy")["result"] if options.update else {}
        by_precision: dict[str, Any] = {}
        if "signs" in variants:
            engines = precisions.engines(Path(scratch) / "bundle-signs")
        for task, folder in tasks.items():
            train, dev, test_file = (
                file_of(options.data / folder, name) for name in ("train", "dev", "test")
            )
            result.setdefault(task, {})["data"] = folder
            for name, (engine, fit_config) in variants.items():
                output = Path(scratch) / name / f"{task}.safetensors"
                output.parent.mkdir(exist_ok=True)
                config = HeadConfig(
                    task,
                    train,
                    dev,
                    output,
                    test_file,
                    learning_rates=LEARNING_RATES,
                    dtype="float16",
                    background=background_of(options.data, task),
                )
                say(f"== {task}, {name}")
                trained = train_head(engine, config, fit_config, say)
                result[task][name] = {
                    metric: rounded(value, 5) for metric, value in trained.head.metrics.items()
                }
                if name == "signs":
                    test = read_labelled(test_file)
                    texts = test.texts
                    spread = texts[:: max(1, len(texts) // CHECKED_TEXTS)][:CHECKED_TEXTS]
                    for each in engines:
                        each.add_head(output)
                    by_precision[task] = precisions.by_precision(engines, task, test)
                    for each in engines:
                        each.remove_head(task)
                    result[task]["end_to_end"] = end_to_end(
                        options.encoder, engines, output, trained.module, spread
                    )
                    say(f"end to end: {result[task]['end_to_end']}")
                    if options.write_heads:
                        options.write_heads.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(output, options.write_heads / output.name)
                        result[task]["head_bytes"] = output.stat().st_size
    if by_precision:
        _write_precisions(by_precision)
    record.write("accuracy", "python -m benchmarks accuracy --data DIR", result)


def _write_precisions(result: dict[str, Any]) -> None:
    record.write("accuracy_by_precision", precisions.COMMAND, result)


def _variants(
    encoder: str, names: Sequence[str], scratch: Path
) -> dict[str, tuple[Engine, FitConfig]]:
    attention = FitConfig()
    mean = FitConfig(position_pooling=PositionPooling.MEAN)
    configs = {
        "signs": (BuildConfig(encoder, precision=precisions.build_precision()), attention),
        "float16": (BuildConfig(encoder, quantization=Quantization.FLOAT16), attention),
        "last_layer_mean": (
            BuildConfig(
                encoder, layer_pooling=LayerPooling.LAST, quantization=Quantization.FLOAT16
            ),
            mean,
        ),
    }
    variants = {}
    for name in names:
        config, fit_config = configs[name]
        folder = scratch / f"bundle-{name}"
        no_heads = scratch / "no-heads"
        no_heads.mkdir(exist_ok=True)
        make_bundle(replace(config, output=folder, heads=no_heads), say)
        variants[name] = Engine.load(folder), fit_config
    return variants


def end_to_end(
    encoder: str, engines: Sequence[Engine], head: Path, module: TaskHead, texts: Sequence[Text]
) -> dict[str, Any]:
    """The packed path against a computation that shares no code with it, text by text.

    Args:
        engines: of one bundle, on different backends.
        module: the torch head that `head` was folded from.
    """
    spec, max_length = engines[0].spec, engines[0].manifest.encoder.max_length
    labels = len(read_head(head).labels)
    expected = np.stack([*_independent(encoder, spec.layers, max_length, module, labels, texts)])
    result: dict[str, Any] = {"texts": len(texts), "backends": {}}
    for engine in engines:
        task = engine.add_head(head)
        got = engine.predict(texts, [task])[task].probabilities
        engine.remove_head(task)
        result["backends"][engine.backend] = {
            "same_top_label": float(np.mean(got.argmax(axis=1) == expected.argmax(axis=1))),
            "mean_probability_difference": rounded(np.abs(got - expected).mean(), 3),
            "max_probability_difference": rounded(np.abs(got - expected).max(), 3),
        }
    return result


def _independent(
    encoder: str,
    layers: Sequence[int],
    max_length: int,
    module: TaskHead,
    labels: int,
    texts: Sequence[Text],
) -> Iterator[NDArray[np.float32]]:
    """Each text's probabilities, from transformers, NumPy and torch alone.

    Args:
        labels: outputs that are labels' logits: the first.
    """
    source = find_encoder(encoder)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(source),
        AutoModel.from_pretrained(source).eval(),
    )
    for text in texts:
        pair = text if isinstance(text, tuple) else (text,)
        inputs = tokenizer(
            *pair,
            return_tensors="pt",
            truncation="longest_first",
            max_length=max_length,
        )
        with torch.inference_mode():
            hidden = model(**inputs, output_hidden_states=True).hidden_states
            mean = np.mean([hidden[i][0].numpy() for i in layers], axis=0)
            signs = torch.from_numpy(np.where(mean > 0, 1, -1).astype(np.float32))[None]
            attended, _ = module.attention(module.query[None, None], signs, signs)
            logits = module.output(torch.tanh(module.dense(attended[:, 0])))
            yield torch.softmax(logits[0, :labels], dim=0).numpy()
