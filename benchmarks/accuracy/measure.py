"""Heads for one label on their test files: on signs, with and without a reject output, on float16
features, on the last layer's mean. `kinds` has those of other kinds, `rejection` what they refuse.

The sign heads that are trained here are those that are shipped (`--write-heads`). Each is also
checked end to end against a computation that shares no code with the engine: transformers' hidden
states in fp32, NumPy's mean and sign, torch's own nn.MultiheadAttention.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks import record
from benchmarks.accuracy import kinds, precisions, rejection
from benchmarks.accuracy.tasks import TASKS, background_of, chosen, require_data
from benchmarks.accuracy.variants import EMBEDDING, LEARNING_RATES, SIGNS, variants
from benchmarks.figures.rounding import rounded
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.heads.head_file import read_head
from bitheads.engine.types import Text
from bitheads.export.source.encoder import find_encoder
from bitheads.training.data.background import parts_of
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.config import HeadConfig
from bitheads.training.heads.fit import Trainable
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.heads.train_head import train_head
from bitheads.training.heads.two_texts_head import TwoTextsHead

VARIANT_OF = {SIGNS: SIGNS, "no_reject": SIGNS, "float16": "float16", EMBEDDING: EMBEDDING}
"""Kind of features that heads are measured on -> variant. Only on signs, as those that are shipped,
they have a reject output; what it costs is the difference to `no_reject`."""

CHECKED_TEXTS = 500


def run(options: argparse.Namespace) -> None:
    """Measures what the options ask for: heads for one label or of other kinds, trained or shipped.

    Raises InputError for data that is not there, and for tasks and features that nobody has.
    """
    require_data(options.data, "train", "dev", "test")
    with tempfile.TemporaryDirectory() as scratch:
        if options.kinds and options.shipped:
            rejection.run(options, Path(scratch))
        elif options.kinds:
            kinds.run(options, Path(scratch))
        elif options.shipped:
            tasks = chosen("--tasks", options.tasks, TASKS)
            _write_precisions(
                precisions.shipped(options.encoder, options.data, tasks, Path(scratch), say)
            )
        else:
            _run(options, Path(scratch))


def _run(options: argparse.Namespace, scratch: Path) -> None:
    """Trains and measures the heads of TASKS; see the module's docstring."""
    tasks = chosen("--tasks", options.tasks, TASKS)
    features = chosen("--features", options.features, VARIANT_OF)
    made = variants(options.encoder, [*dict.fromkeys(features.values())], scratch, say)
    result: dict[str, Any] = record.read("accuracy")["result"] if options.update else {}
    by_precision: dict[str, Any] = {}
    if SIGNS in features:
        engines = precisions.engines(made[SIGNS].bundle)
    for task, folder in tasks.items():
        train, dev, test_file = (
            file_of(options.data / folder, name) for name in ("train", "dev", "test")
        )
        result.setdefault(task, {})["data"] = folder
        for name in features:
            variant = made[features[name]]
            output = scratch / name / f"{task}.safetensors"
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
                reject=name == SIGNS,
            )
            say(f"== {task}, {name}")
            trained = train_head(variant.engine, config, variant.fit, say)
            result[task][name] = {
                metric: rounded(value, 5) for metric, value in trained.head.metrics.items()
            }
            if name == SIGNS:
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


def end_to_end(
    encoder: str,
    engines: Sequence[Engine],
    head: Path,
    module: Trainable,
    texts: Sequence[Text],
) -> dict[str, Any]:
    """The packed path against a computation that shares no code with it, text by text.

    Args:
        engines: of one bundle, on different backends.
        module: the head that `head` was folded from, in torch.
    """
    labels = len(read_head(head).labels)
    logits = _independent(encoder, engines[0], module, texts)
    expected = np.stack([torch.softmax(of_text[:labels], dim=0).numpy() for of_text in logits])
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
    encoder: str, engine: Engine, module: Trainable, texts: Sequence[Text]
) -> Iterator[torch.Tensor]:
    """Each text's outputs, from transformers, NumPy and torch alone."""
    layers, max_length = engine.spec.layers, engine.manifest.encoder.max_length
    source = find_encoder(encoder)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(source),
        AutoModel.from_pretrained(source).eval(),
    )
    of_text = module.text if isinstance(module, TwoTextsHead) else module
    plain = TaskHead.of(of_text.trained())

    @torch.inference_mode()
    def read(*parts: str) -> torch.Tensor:
        inputs = tokenizer(
            *parts,
            return_tensors="pt",
            truncation="longest_first",
            max_length=max_length,
        )
        hidden = model(**inputs, output_hidden_states=True).hidden_states
        mean = np.mean([hidden[i][0].numpy() for i in layers], axis=0)
        signs = torch.from_numpy(np.where(mean > 0, 1, -1).astype(np.float32))[None]
        attended, _ = plain.attention(plain.query[None, None], signs, signs)
        outputs: torch.Tensor = plain.output(torch.tanh(plain.dense(attended[:, 0])))[0]
        return outputs

    for text in texts:
        if isinstance(module, TwoTextsHead):
            first, second = (torch.nn.functional.normalize(read(part), dim=0) for part in text)
            root = len(first) ** 0.5
            u, w, cosine = root * first, root * second, first @ second
            combined = torch.cat([u, w, (u - w).abs(), u * w, cosine[None]])
            yield module.mlp(combined).detach()
        else:
            yield read(*parts_of(text)).detach()
