"""Every shipped head on its test file: on signs, on float16 features, on the last layer's mean.

The sign heads this routine trains are the ones that are shipped (`--write-heads`). Each is also
checked end to end against a computation that shares no code with the engine: transformers' hidden
states in fp32, NumPy's mean and sign, torch's own nn.MultiheadAttention.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks import record
from engine import Engine
from engine.errors import InputError
from engine.types import LayerPooling, PositionPooling, Quantization, Text
from export.config import BuildConfig
from export.encoder import find_encoder
from export.make_bundle import make_bundle
from training.config import FitConfig, HeadConfig
from training.data import read_tsv
from training.task_head import TaskHead
from training.train_head import train_head

TASKS = {
    "sentiment": "sst2",
    "topic": "ag_news",
    "spam": "spam_assassin",
    "offensive": "hate_offensive",
    "intent": "clinc150",
    "duplicate": "qqp",
    "clickbait": "clickbait",
}
"""Shipped head -> folder of the data it is trained on."""

LEARNING_RATES = (3e-4, 1e-3)
"""The better on dev is kept, for each kind of features: they differ in scale."""

CHECKED_TEXTS = 100


def run(options: argparse.Namespace) -> None:
    """Trains and measures the heads of TASKS on three feature specs; see the module's docstring."""
    _check_data(options.data)
    tasks = {task: TASKS[task] for task in options.tasks or TASKS}
    with tempfile.TemporaryDirectory() as scratch:
        variants = _variants(options.encoder, Path(scratch))
        result: dict[str, Any] = {}
        for task, folder in tasks.items():
            files = {
                name: options.data / folder / f"{name}.tsv" for name in ("train", "dev", "test")
            }
            result[task] = {"data": folder}
            for name, (engine, fit_config) in variants.items():
                output = Path(scratch) / name / f"{task}.safetensors"
                output.parent.mkdir(exist_ok=True)
                config = HeadConfig(
                    task,
                    **files,
                    output=output,
                    learning_rates=LEARNING_RATES,
                    dtype="float16",
                )
                _say(f"== {task}, {name}")
                trained = train_head(engine, config, fit_config, _say)
                result[task][name] = _rounded(trained.head.metrics)
                if name == "signs":
                    texts = read_tsv(files["test"]).texts
                    spread = texts[:: max(1, len(texts) // CHECKED_TEXTS)][:CHECKED_TEXTS]
                    result[task]["end_to_end"] = end_to_end(
                        options.encoder, engine, output, trained.module, spread
                    )
                    _say(f"end to end: {result[task]['end_to_end']}")
                    if options.write_heads:
                        options.write_heads.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(output, options.write_heads / output.name)
                        result[task]["head_bytes"] = output.stat().st_size
    record.write("accuracy", "python -m benchmarks accuracy --data DIR", result)


def _variants(encoder: str, scratch: Path) -> dict[str, tuple[Engine, FitConfig]]:
    attention = FitConfig()
    mean = FitConfig(position_pooling=PositionPooling.MEAN)
    configs = {
        "signs": (BuildConfig(encoder), attention),
        "float16": (BuildConfig(encoder, quantization=Quantization.FLOAT16), attention),
        "last_layer_mean": (
            BuildConfig(
                encoder, layer_pooling=LayerPooling.LAST, quantization=Quantization.FLOAT16
            ),
            mean,
        ),
    }
    variants = {}
    for name, (config, fit_config) in configs.items():
        folder = scratch / f"bundle-{name}"
        make_bundle(replace(config, output=folder), _say)
        variants[name] = Engine.load(folder), fit_config
        for task in list(variants[name][0].tasks):
            variants[name][0].remove_head(task)
    return variants


def end_to_end(
    encoder: str, engine: Engine, head: Path, module: TaskHead, texts: Sequence[Text]
) -> dict[str, Any]:
    """The packed path against a computation that shares no code with it, text by text.

    Args:
        module: the torch head that `head` was folded from.
    """
    task = engine.add_head(head)
    packed = engine.predict(texts, [task])[task]
    source = find_encoder(encoder)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(source),
        AutoModel.from_pretrained(source).eval(),
    )
    spec, same, difference = engine.spec, 0, 0.0
    for row, text in enumerate(texts):
        pair = text if isinstance(text, tuple) else (text,)
        inputs = tokenizer(
            *pair,
            return_tensors="pt",
            truncation="longest_first",
            max_length=engine.manifest.encoder.max_length,
        )
        with torch.inference_mode():
            hidden = model(**inputs, output_hidden_states=True).hidden_states
            mean = np.mean([hidden[i][0].numpy() for i in spec.layers], axis=0)
            signs = torch.from_numpy(np.where(mean > 0, 1, -1).astype(np.float32))[None]
            attended, _ = module.attention(module.query[None, None], signs, signs)
            logits = module.output(torch.tanh(module.dense(attended[:, 0])))
            probabilities = torch.softmax(logits, dim=1)[0].numpy()
        same += packed.labels[probabilities.argmax()] == packed.top[row]
        difference = max(difference, np.abs(probabilities - packed.probabilities[row]).max())
    engine.remove_head(task)
    return {
        "texts": len(texts),
        "same_top_label": same / len(texts),
        "max_probability_difference": round(float(difference), 4),
        "backend": engine.backend,
    }


def _rounded(metrics: Any) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in metrics.items()}


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _check_data(data: Path) -> None:
    missing = [f for f in TASKS.values() if not (data / f / "train.tsv").is_file()]
    if missing:
        raise InputError(
            f"--data {data}: no {missing[0]}/train.tsv in it. Expected a folder a task "
            f"({', '.join(TASKS.values())}) with train.tsv, dev.tsv and test.tsv."
        )
