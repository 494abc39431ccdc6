"""Adapters (LoRA and the like) beside or instead of weights: refused, with what merges them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitheads.export.errors import ExportError
from bitheads.export.source.shell import in_python

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "SEQ_2_SEQ_LM": "ForSeq2SeqLM",
    "CAUSAL_LM": "ForCausalLM",
    "QUESTION_ANS": "ForQuestionAnswering",
    "FEATURE_EXTRACTION": "ForFeatureExtraction",
}
"""peft's names of tasks -> ends of the names of its classes. An adapter's weights are found in the
class that it was trained in only."""

UNMERGED_KINDS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "POLY",
    "XLORA",
)
"""Kinds that add tokens, or choose among adapters text by text: no change of the weights."""


def check_adapters(
    name: str, folder: Path, files: Mapping[str, int], source: str | None = None
) -> None:
    """Raises ExportError if there is an adapter, which would be left out.

    Args:
        files: of the checkpoint, by path.
        source: ORG/NAME@COMMIT of a model of the hub.
    """
    for file in ADAPTERS:
        if file not in files:
            continue
        config = _read(folder)
        if (kind := config.get("peft_type")) in UNMERGED_KINDS:
            raise ExportError(
                f"encoder {name!r}: {file}: an adapter of the kind {kind}, which cannot be merged "
                "into weights, and would be left out. Take an encoder without one."
            )
        raise ExportError(
            f"encoder {name!r}: {file}: an adapter (LoRA or the like) lies beside the weights or "
            "in their place, and would be left out. Merge it (pip install peft), then build the "
            f"merged encoder, --encoder merged: {merge_command(folder, files, source)}"
        )


def merge_command(folder: Path, files: Mapping[str, int], source: str | None = None) -> str:
    """What to type so that the folder `merged` is an encoder with the adapter in its weights."""
    config = _read(folder)
    base = str(config.get("base_model_name_or_path") or "BASE")
    end = TASKS.get(str(config.get("task_type")))
    if end is None:
        end = "" if config.get("auto_mapping") else "ForFeatureExtraction"
    id_, _, commit = (source or "").partition("@")
    where = f"{id_!r}, revision={commit!r}" if source else repr(str(folder))
    # The base has a classifier of as many classes as its own config.json says; it is not needed.
    options = ", ignore_mismatched_sizes=True" if end.endswith("Classification") else ""
    tokenizer = where if "tokenizer_config.json" in files else repr(base)
    first = ""
    if source is None and Path(base).absolute() == folder.absolute():
        # transformers would find the adapter beside its base, and take it for a part of that.
        first = (
            "import json, shutil; "
            f"shutil.copytree({base!r}, 'base-alone', ignore=shutil.ignore_patterns('adapter_*')); "
            f"shutil.copytree({base!r}, 'adapter-alone'); "
            "path = 'adapter-alone/adapter_config.json'; config = json.load(open(path)); "
            "config['base_model_name_or_path'] = 'base-alone'; json.dump(config, open(path, 'w')); "
        )
        where = "'adapter-alone'"
    return in_python(
        f"{first}from peft import AutoPeftModel{end} as Model; "
        "from transformers import AutoTokenizer; "
        f"Model.from_pretrained({where}{options}).merge_and_unload().save_pretrained('merged'); "
        f"AutoTokenizer.from_pretrained({tokenizer}).save_pretrained('merged')"
    )


def _read(folder: Path) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / ADAPTERS[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the user knows what it was trained on
    return content if isinstance(content, dict) else {}
