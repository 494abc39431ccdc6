"""Multi-task pre-training from the first step, or the last checkpoint, to the finished encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitheads import __version__
from bitheads.engine.errors import InputError
from bitheads.engine.files.whole_file import make_folder
from bitheads.export.source.encoder import load_encoder
from bitheads.training.data.tasks import Task, choose_tasks, read_task, task_names
from bitheads.training.device import choose_device
from bitheads.training.errors import CheckpointError, OtherRunError, TrainingError
from bitheads.training.multitask.checkpoint import (
    RECORD,
    Checkpoint,
    differences,
    last_checkpoint,
    publish,
    read_record,
    remove_old,
    restore,
    write_checkpoint,
)
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.run_log import RunLog
from bitheads.training.multitask.step import Stepper, evaluate
from bitheads.training.multitask.task_batches import TrainBatches, all_batches, text_tokenizer
from bitheads.training.output_folder import locked
from bitheads.training.progress import Progress

RUN, LOG = "run", "losses.jsonl"
"""Names in the output: of the folder of checkpoints while training goes on, and of the log."""

Say = Callable[[str], None]
Record = dict[str, Any]


def train_multitask(
    config: MultitaskConfig,
    data: Path,
    output: Path,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    say: Say = lambda message: None,
    weights_sha256: str | None = None,
) -> Record:
    """Trains the encoder and writes it to `output`; returns the content of its `multitask.json`.

    Args:
        data: a folder of tasks, see `training.data.tasks`.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        resume: go on from the last checkpoint in `output`, or start if there is none yet.
        force: start over, whatever run is in `output`.
        say: called with one line at a time.
        weights_sha256: of the encoder that a resumed run must have started from; None for any.

    Raises InputError for unsound data, ConfigError and TrainingError for what cannot be trained,
    OtherRunError for the checkpoints of another run, CheckpointError where none can be written.
    """
    chosen_device = choose_device(device)
    _check_output(output, config.encoder, resume, force)
    tasks = _read_tasks(config, data)
    for task in tasks.values():
        say(
            f"task {task.name}: {len(task.classes)} classes; training rows "
            f"{len(task.train)} of {task.train.file_rows}, dev rows {len(task.dev)} of "
            f"{task.dev.file_rows}"
        )
    identity = _identity(config, tasks)
    checkpoint = None
    with locked(output):
        if not force and (output / RECORD).exists():
            record = read_record(output)
            _check_same(identity, record, output)
            _check_base(weights_sha256, record, output)
            say(f"{output} is finished: nothing is left to do")
            return record
        if not force:
            checkpoint = last_checkpoint(output / RUN, say)
        if checkpoint is not None:
            _check_same(identity, checkpoint.record, checkpoint.folder)
            _check_base(weights_sha256, checkpoint.record, checkpoint.folder)
            say(f"resuming from step {checkpoint.step}, {checkpoint.folder}")
        run = _Run(config, tasks, identity, output, chosen_device, checkpoint, say)
        if force:  # now that everything has loaded
            (output / RECORD).unlink(missing_ok=True)
            shutil.rmtree(output / RUN, ignore_errors=True)
        make_folder(output / RUN)
        return run.run()


class _Run:
    """A run from its start, or from a checkpoint.

    Attributes:
        checkpoint: the last one that is whole.
    """

    def __init__(
        self,
        config: MultitaskConfig,
        tasks: Mapping[str, Task],
        identity: Record,
        output: Path,
        device: torch.device,
        checkpoint: Checkpoint | None,
        say: Say,
    ) -> None:
        self._config, self._output, self._say = config, output, say
        self.checkpoint = checkpoint
        source = config.encoder if checkpoint is None else str(checkpoint.folder)
        say(f"loading encoder {source} on {device}")
        encoder = load_encoder(source)
        base = {"name": encoder.name, "weights_sha256": encoder.weights_sha256}
        if checkpoint is not None:
            base = checkpoint.record["base"]
        classes = {name: len(task.classes) for name, task in tasks.items()}
        self._model = MultitaskModel(encoder, classes, config, device)
        tokenizer = text_tokenizer(encoder, config.max_length)
        batches = {
            name: TrainBatches(task, tokenizer, encoder.pad_id, config.batch_size, config.seed)
            for name, task in tasks.items()
        }
        self._dev = {
            name: all_batches(task.dev, tokenizer, encoder.pad_id) for name, task in tasks.items()
        }
        self._weights = config.task_weights(
            {name: task.train.file_rows for name, task in tasks.items()}
        )
        self._stepper = Stepper(self._model, batches, self._weights, config)
        self._metrics: dict[str, dict[str, float]] = {}
        self._record: Record = {
            **identity,
            "base": base,
            "layers": list(self._model.layers),
            "loss_weights": self._weights,
            "made_with": _made_with(device),
        }
        if checkpoint is not None:
            restore(checkpoint, self._model, self._stepper.optimizer)
            self._metrics = checkpoint.record["dev"]
            for line in differences(self._record["made_with"], checkpoint.record["made_with"]):
                say(f"note: {line}, so losses may differ in their last digits from then on")

    def run(self) -> Record:
        first, num_bytes = 1, 0
        if self.checkpoint is not None:
            first, num_bytes = self.checkpoint.step + 1, self.checkpoint.record["log_bytes"]
        try:
            with RunLog(self._output / LOG, num_bytes) as log:
                self._train(first, log)
            return self._finish()
        except (TrainingError, CheckpointError) as error:
            raise type(error)(f"{error} {self._what_is_kept()}") from error
        except KeyboardInterrupt:
            self._say(f"stopped. {self._what_is_kept()}")
            raise

    def _train(self, first: int, log: RunLog) -> None:
        config = self._config
        if first == 1:
            self._evaluate(0, log)
        progress = Progress(config.steps, first - 1, self._say)
        for number in range(first, config.steps + 1):
            losses = self._stepper.step(number)
            log.write(
                [{"step": number, "task": task, "loss": loss} for task, loss in losses.items()]
            )
            total = sum(self._weights[task] * loss for task, loss in losses.items())
            progress.step(number, f"loss {total:.4f}")
            is_last = number == config.steps
            if is_last or number % config.evaluate_every == 0:
                self._evaluate(number, log)
            if is_last or number % config.checkpoint_every == 0:
                self._write_checkpoint(number, log)

    def _evaluate(self, number: int, log: RunLog) -> None:
        self._metrics = evaluate(self._model, self._dev, self._config)
        log.write(
            [
                {"step": number, "task": task, **{f"dev_{key}": x for key, x in metrics.items()}}
                for task, metrics in self._metrics.items()
            ]
        )
        shown = [f"{task} {metrics['accuracy']:.4f}" for task, metrics in self._metrics.items()]
        mean = sum(metrics["accuracy"] for metrics in self._metrics.values()) / len(shown)
        self._say(f"step {number}: dev accuracy {mean:.4f} on average: {', '.join(shown)}")

    def _write_checkpoint(self, number: int, log: RunLog) -> None:
        record = {**self._record, "step": number, "dev": self._metrics, "log_bytes": log.flush()}
        folder = self._output / RUN / f"step-{number:08d}"
        self.checkpoint = write_checkpoint(folder, record, self._model, self._stepper.optimizer)
        remove_old(self._output / RUN)

    def _finish(self) -> Record:
        """Writes the encoder without the optimizer, and removes the checkpoints."""
        record = {**self._record, "step": self._config.steps, "dev": self._metrics}
        written = write_checkpoint(self._output / RUN / "finished", record, self._model, None)
        publish(written.folder, self._output)
        shutil.rmtree(self._output / RUN, ignore_errors=True)
        self._say(f"wrote {self._output}: `bitheads build --encoder {self._output}` makes a bundle")
        return written.record

    def _what_is_kept(self) -> str:
        if self.checkpoint is None:
            return "No checkpoint was written yet: --resume starts from the beginning."
        return (
            f"The checkpoint of step {self.checkpoint.step} is whole: --resume goes on from there, "
            f"and {self.checkpoint.folder} can be the encoder of another configuration."
        )


def _check_output(output: Path, encoder: str, resume: bool, force: bool) -> None:
    if Path(encoder).is_dir() and Path(encoder).resolve().is_relative_to(output.resolve()):
        raise TrainingError(
            f"--output {output} holds {encoder}, the encoder training starts from, and would "
            "replace it. Choose another."
        )
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / RUN).is_dir() and not (output / RECORD).is_file():
        raise TrainingError(
            f"--output {output} holds something else than a run of this command. Choose another."
        )
    if not resume and not force:
        raise TrainingError(
            f"--output {output} holds a run. Pass --resume to go on with it, --force to start "
            "over, or choose another."
        )


def _read_tasks(config: MultitaskConfig, data: Path) -> dict[str, Task]:
    chosen = choose_tasks(data, config.tasks, config.exclude_tasks, config.exclude_types)
    for key, named in (("sizes", config.sizes), ("quotes", config.quotes or {})):
        if unknown := sorted(set(named) - task_names(data)):
            raise InputError(
                f"{data}: has no task {', '.join(map(repr, unknown))}, for which {key} has "
                "something. Correct the name, or remove it."
            )
    limits = config.max_train_rows, config.max_dev_rows
    return {
        name: read_task(data / name, kind, *limits, config.seed, config.quotes)
        for name, kind in chosen.items()
    }


def _identity(config: MultitaskConfig, tasks: Mapping[str, Task]) -> Record:
    """What must be the same for a run to be resumed."""
    return {
        "config": config.to_json(),
        "tasks": {name: task.to_json() for name, task in tasks.items()},
    }


def _check_same(identity: Record, record: Record, folder: Path) -> None:
    stored = {key: record.get(key) for key in identity}
    if lines := differences(json.loads(json.dumps(identity)), stored):
        raise OtherRunError(
            f"{folder}: is of another configuration or other data: {'; '.join(lines)}. Make them "
            "the same to resume, pass --force to start over, or choose another --output."
        )


def _check_base(weights_sha256: str | None, record: Record, folder: Path) -> None:
    found = record["base"]["weights_sha256"]
    if weights_sha256 not in (None, found):
        raise OtherRunError(
            f"{folder}: started from an encoder with the weights {found}, expected "
            f"{weights_sha256}. Pass --force to start over, or choose another --output."
        )


def _made_with(device: torch.device) -> Record:
    names = ("torch", "transformers", "tokenizers")
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"bitheads": __version__, **{name: version(name) for name in names}},
    }
