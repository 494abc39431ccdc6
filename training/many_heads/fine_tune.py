"""The encoder fine-tuned for one task, end to end: what a shared, frozen one is compared with."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.engine.batching import pad_batch
from bitheads.engine.bundle import Manifest
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.predictions import Prediction
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text, TokenBatch
from bitheads.export.source.encoder import Encoder, HiddenStates, load_encoder
from bitheads.training.data.batches import shuffled_batches
from bitheads.training.data.held_out import with_dev
from bitheads.training.device import choose_device
from bitheads.training.errors import TrainingError
from bitheads.training.heads.objectives import objective_of
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.many_heads.cells import Result
from bitheads.training.many_heads.scores import answers_of
from bitheads.training.many_heads.work import TaskWork, judged_sets
from bitheads.training.multitask.task_batches import text_batches, text_tokenizer

LEARNING_RATE, HEAD_LEARNING_RATE = 3e-5, 3e-4
"""Peaks of AdamW's, as `bitheads train-encoder` has them."""
WARMUP = 0.06
BATCH_SIZE = 16
MIN_STEPS, MAX_EPOCHS = 200, 20
"""Of few texts there are more epochs, up to so many, for so many steps."""


def encoder_of(manifest: Manifest) -> str:
    """What a bundle says that it was made of: ORG/NAME@COMMIT of the hub, or a name."""
    return manifest.versions.get("encoder", manifest.spec.encoder)


def fine_tune_job(
    encoder: str, weights_sha256: str, work: TaskWork, epochs: int, device: str, threads: int
) -> Result:
    """What an encoder that was fine-tuned on the task alone answers to what heads are judged on.

    Args:
        weights_sha256: of the encoder, as the bundle has it.

    Raises ExportError for what cannot be loaded, and TrainingError for another encoder and for a
    loss that is not finite.
    """
    started_s = time.perf_counter()
    torch.set_num_threads(threads)
    loaded = load_encoder(encoder)
    if loaded.weights_sha256 != weights_sha256:
        raise TrainingError(
            f"--encoder {encoder}: got weights {loaded.weights_sha256[:12]}..., expected "
            f"{weights_sha256[:12]}..., those of the bundle. Name what the bundle was built from."
        )
    learned, judged = judged_sets(work.read())
    learned = with_dev(learned)
    objective = objective_of(learned["train"], work.config.decision)
    targets = {name: objective.targets(data) for name, data in learned.items()}
    torch.manual_seed(0)
    model = _Model(loaded, objective.num_logits, choose_device(device))
    loss_of = objective.new_loss(targets["train"]).to(model.device)
    texts = learned["train"].texts
    steps_per_epoch = -(-len(texts) // BATCH_SIZE)
    epochs = max(epochs, min(MAX_EPOCHS, -(-MIN_STEPS // steps_per_epoch)))
    head = [*model.head.parameters(), *loss_of.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [*model.hidden_states.parameters()], "lr": LEARNING_RATE},
            {"params": head, "lr": HEAD_LEARNING_RATE},
        ],
        weight_decay=0.01,
    )
    steps = epochs * steps_per_epoch
    rising = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (steps - step) / (steps - rising + 1))
    )
    random = np.random.default_rng(0)
    lengths = np.array([len(str(text)) for text in texts], np.int64)
    rows_of_train = objective.of_rows(targets["train"])
    both = nn.ModuleList([model, loss_of])
    best_score, best_state = -math.inf, both.state_dict()
    for _ in range(epochs):
        both.train()
        for rows in shuffled_batches(lengths, BATCH_SIZE, random):
            logits = model(model.batch([texts[row] for row in rows]))
            loss = loss_of(logits, torch.from_numpy(rows_of_train[rows]).to(model.device))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"task {work.name}: the loss of fine-tuning is {loss.item()}. Look at the "
                    "task's texts."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        found = objective.score(model.logits(learned["dev"].texts), targets["dev"], loss_of)
        if found > best_score:
            best_score, best_state = found, copy.deepcopy(both.state_dict())
    both.load_state_dict(best_state)
    of_dev = model.logits(learned["dev"].texts)
    decided = objective.decide(of_dev, targets["dev"], loss_of.to("cpu"))
    logits = (model.logits(judged.texts) * decided.scale + decided.shift).astype(np.float32)
    prediction = Prediction(objective.labels, logits, objective.kind, decided.decision)
    return Result(
        {"epochs": epochs, "steps": steps, "seconds": time.perf_counter() - started_s},
        {"answers": answers_of(prediction)},
    )


class _Model(nn.Module):
    """An encoder whose last layer's mean a task head reads."""

    def __init__(self, encoder: Encoder, outputs: int, device: torch.device) -> None:
        super().__init__()
        encoder.model.set_attn_implementation("sdpa")  # loaded in its plain form, which is slower
        self.hidden_states = HiddenStates(encoder, (encoder.num_layers,))
        self.head = TaskHead(
            encoder.dim, outputs, encoder.attention_heads, PositionPooling.MEAN, dropout=0.1
        )
        self.device = device
        self._pad_id = encoder.pad_id
        self._tokenizer: TextTokenizer = text_tokenizer(encoder, None)
        self.to(device)

    def batch(self, texts: Sequence[Text]) -> TokenBatch:
        return pad_batch(self._tokenizer(texts), self._pad_id)

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """float32 [texts, outputs]."""
        inputs = [
            torch.from_numpy(getattr(batch, name)).to(self.device)
            for name in self.hidden_states.input_names
        ]
        (hidden,) = self.hidden_states(*inputs)
        logits: torch.Tensor = self.head(hidden, inputs[1].bool())
        return logits

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """float32 [texts, outputs]."""
        self.eval()
        found = np.empty((len(texts), self.head.output.out_features), np.float32)
        with torch.inference_mode():
            for batch, rows in text_batches(texts, self._tokenizer, self._pad_id):
                found[rows] = self(batch).cpu().numpy()
        return found
