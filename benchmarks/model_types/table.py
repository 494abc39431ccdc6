"""What works for each model type, and how tokenizers compare as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

PAGE = "docs/model_types.md"
USUAL_TOKENIZER: Mapping[str, str] = {
    "roberta": "roberta",
    "mpnet": "mpnet",
    "modernbert": "modernbert",
    "xlm-roberta": "xlm-roberta",
    "xlm-roberta-xl": "xlm-roberta",
    "albert": "albert",
    "camembert": "camembert",
    "xmod": "xlm-roberta",
    "data2vec-text": "roberta",
    "rembert": "rembert",
    "big_bird": "big_bird",
    "deberta": "roberta",
    "deberta-v2": "deberta-v2",
    "gte": "xlm-roberta",
    "jina_embeddings_v3": "xlm-roberta",
    "eurobert": "llama 3",
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "qwen2": "qwen",
    "qwen3": "qwen",
    "llama": "llama 3",
    "mistral": "llama",
    "gemma3_text": "gemma",
    "modernbert-decoder": "modernbert",
    "olmo2": "llama 3",
    "gpt_neox": "gpt_neox",
}
"""Type -> the kind of tokenizer (benchmarks.inputs.tokenizer_kinds) that its models have."""
USUALLY = "bert"
"""That of the others."""
NO_FILE = ("roformer",)
"""Types whose tokenizer splits words by code, which no tokenizer.json says."""
_SHOWN = 160


def types(stored: dict[str, Any]) -> str:
    """A row per type."""
    result = stored["result"]
    head = ["type", "signs, fp32 graph", "signs, fp16 graph", "C++ tokenizer", "TensorRT-RTX plan"]
    rows, refused = [], []
    for name, row in sorted(result["types"].items()):
        if "layers" not in row:
            refused.append([f"`{name}`", _reason(row)])
            continue
        rows.append(
            [
                f"`{name}`",
                _signs(row["fp32"]),
                _signs(row["fp16"]),
                _tokenizer(name, result["tokenizers"]),
                _plan(row),
            ]
        )
    lines = table(head, rows, len(head))
    if refused:
        lines += ["", *table(["refused", "reason"], refused, 2)]
    return "\n".join([*lines, source(stored, "a check, not a speed")])


def tokenizers(stored: dict[str, Any]) -> str:
    """A row per kind of tokenizer, then those of published models."""
    result = stored["result"]
    rows = [_tokenizer_row(name, row) for name, row in result["tokenizers"].items()]
    published = result.get("published", {})
    rows += [_tokenizer_row(f"{name}, as published", row) for name, row in published.items()]
    head = ["tokenizer", "texts with the same ids", "where others differ"]
    return "\n".join([*table(head, rows, 3), source(stored, "a check, not a speed")])


def _signs(row: Mapping[str, Any]) -> str:
    if "signs" not in row:
        return _reason(row)
    return " / ".join(f"{share:.2%}" for share in row["signs"].values())


def _tokenizer(name: str, kinds: Mapping[str, Any]) -> str:
    if name in NO_FILE:
        return "no tokenizer.json"
    kind = USUAL_TOKENIZER.get(name, USUALLY)
    return f"{kind}: {_share(kinds.get(kind, {}))}"


def _share(row: Mapping[str, Any]) -> str:
    if "texts" not in row:
        return "cannot be converted" if row else "not compared"
    if row["same"] == row["texts"]:
        return "same"
    return f"{row['same'] / row['texts']:.1%}"


def _tokenizer_row(name: str, row: Mapping[str, Any]) -> list[str]:
    if "texts" not in row:
        return [name, "none", _reason(row)]
    differing = row.get("differing", {}).items()
    where = [
        f"{kind} ({some['texts'] - some['same']} of {some['texts']})" for kind, some in differing
    ]
    same = "all" if row["same"] == row["texts"] else f"{row['same']:,}"
    return [name, f"{same} of {row['texts']:,}", ", ".join(where)]


def _plan(row: Mapping[str, Any]) -> str:
    plan = row.get("plan")
    if plan is None:
        return "not tried"
    if "kernels" not in plan:
        return _reason(plan)
    if plan["fused_attention"] == row["layers"]:
        return "attention in one kernel"
    return f"builds; attention in one kernel in {plan['fused_attention']} of {row['layers']} layers"


def _reason(row: Mapping[str, Any]) -> str:
    said = " ".join((row.get("refused") or row["failed"]).split())
    short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
    return short.replace("|", "\\|")


BLOCKS = (
    Block("model_types", types, page=PAGE),
    Block("tokenizers", tokenizers, page=PAGE),
)
