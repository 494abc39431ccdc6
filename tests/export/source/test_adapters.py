"""Adapters are refused, and the command that the message has merges them: by peft, as typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_encoders import edit
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def refusal(folder: Path) -> str:
    with pytest.raises(ExportError, match=r"adapter_config\.json: an adapter .*Merge it") as error:
        load_encoder(str(folder))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def train(base: Path, kind: Any, task: str | None, **options: Any) -> Any:
    """A model with an adapter that changes it."""
    adapted = get_peft_model(
        kind.from_pretrained(base, **options),
        LoraConfig(task_type=task, r=4, target_modules=["query", "value"]),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    return adapted.eval()


def last_hidden_state(model: Any, tokenizer: Any) -> torch.Tensor:
    tokens = tokenizer("The tide was out.", return_tensors="pt")
    with torch.inference_mode():
        found: torch.Tensor = model(**tokens, output_hidden_states=True).hidden_states[-1]
    return found


@pytest.mark.parametrize(
    ("kind", "task", "options"),
    [
        (AutoModel, "FEATURE_EXTRACTION", {}),
        (AutoModelForMaskedLM, None, {}),
        (AutoModelForSequenceClassification, "SEQ_CLS", {"num_labels": 7}),
        ("beside", "FEATURE_EXTRACTION", {}),
    ],
)
def test_the_command_merges_it(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, kind: Any, task: Any, options: Any
) -> None:
    base, adapter = tiny_encoder("bert"), tmp_path / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(base)
    if kind == "beside":
        base, kind = Path(shutil.copytree(base, adapter)), AutoModel
    adapted = train(base, kind, task, **options)
    adapted.save_pretrained(adapter)
    message = refusal(adapter)
    assert "(pip install peft)" in message

    command = message[message.index("python -c ") :]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, timeout=300)
    merged = load_encoder(str(tmp_path / "merged"))
    expected = last_hidden_state(adapted, tokenizer)
    got = last_hidden_state(merged.model, merged.tokenizer)
    assert (got - expected).abs().max() < 1e-4
    plain = last_hidden_state(load_encoder(str(tiny_encoder("bert"))).model, tokenizer)
    assert (plain - expected).abs().max() > 0.1


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
def test_without_its_description(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, file: str
) -> None:
    folder = Path(shutil.copytree(tiny_encoder("bert"), tmp_path / "own"))
    (folder / file).write_bytes(b"")
    with pytest.raises(ExportError, match=rf"{file}: an adapter .*merge_and_unload"):
        load_encoder(str(folder))


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "XLORA"])
def test_what_is_no_change_of_weights(tmp_path: Path, kind: str) -> None:
    edit(tmp_path, "adapter_config.json", base_model_name_or_path="some/base", peft_type=kind)
    with pytest.raises(ExportError, match=f"of the kind {kind}, which cannot be merged"):
        load_encoder(str(tmp_path))
