"""What is asked of any model, and found out by running it: there is no list of families.

A model is given token ids and the plain mask of its tokens, and makes its masks and positions
itself. What is looked at is what it computes: whether a text has the same hidden states alone and
beside others, whether the type of a token matters, how many tokens it reads.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForTextEncoding

from bitheads.export.errors import ExportError, first_line
from bitheads.export.source.windows import MASKED_SCORE, WINDOWED

TOLERANCE = 1e-3
"""Error of a text's hidden states beside others, relative to those of the text alone. Another order
of sums makes 1e-6 of it, padding that is seen 0.3."""

SAME = 1e-4
"""Difference of hidden states, relative, up to which two ways to call a model are the same."""

PROBE_LENGTHS = (5, 11, 1)
"""Tokens of the texts that are run alone and together."""

EAGER = "eager"
"""transformers' name of attention in its plain form."""

USUAL_MAX_LENGTH = 512
"""Tokens of a text at most where neither the model nor its tokenizer has a limit."""

MAX_TRIED_LENGTH = 1024
"""Tokens up to which a limit is tried out; positions are looked up in a table up to there."""

POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
TYPE_TABLES = ("token_type_embeddings", "segment_embeddings")
"""Ends of the names that tables of positions and of token types have."""


@dataclass(frozen=True)
class Forward:
    """How a model's forward is called.

    Attributes:
        takes_bias: it takes what is added to the scores, [rows, 1, 1, seq], in place of the mask,
            and computes the same. Of that less is left in a graph.
        takes_types: it takes token_type_ids.
        options: what else it is given.
        attention: what transformers calls the attention that its graph is made with.
    """

    takes_bias: bool = True
    takes_types: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    attention: str = EAGER

    def inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> dict[str, Any]:
        """The arguments for int64 tensors [rows, seq], of a model whose weights are of a type."""
        mask = attention_mask
        if self.takes_bias:
            mask = (1 - attention_mask[:, None, None, :]).to(dtype) * MASKED_SCORE
        found = {"input_ids": input_ids, "attention_mask": mask, **self.options}
        if self.takes_types:
            # One row for all tokens, which becomes a constant of the graph.
            first = torch.zeros((1, 1), dtype=torch.int64, device=input_ids.device)
            found["token_type_ids"] = first if token_type_ids is None else token_type_ids
        return found


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Has a model compute attention as transformers calls it, while this lasts.

    Raises ValueError if the model cannot.
    """
    before = model.config._attn_implementation
    if name != before:
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        if name != before:
            model.set_attn_implementation(before)


@dataclass(frozen=True)
class Architecture:
    """What was found out about a model.

    Attributes:
        num_layers: its hidden states, without the embeddings.
        attention_heads: that divide its dim.
        max_length: most tokens of a text; None if nothing in the model bounds them.
        token_types: rows of its table of token types; None if it has none.
        forward: how it is called.
    """

    num_layers: int
    dim: int
    attention_heads: int
    max_length: int | None
    token_types: int | None
    forward: Forward


def model_class(config: Any) -> Any:
    """The class of transformers that computes a configuration's hidden states.

    Of an encoder-decoder it is the encoder alone. Raises ExportError if there is none.
    """
    for found in models_of(type(config)):
        return found
    raise ExportError(
        f"model type {config.model_type!r}: transformers has no model of it that reads texts "
        "alone. Take another encoder."
    )


def models_of(kind: Any) -> list[Any]:
    """transformers' classes of models for a class of configurations, encoders of texts first."""
    found: list[Any] = []
    for auto in (AutoModelForTextEncoding, AutoModel):
        models: Any = auto._model_mapping.get(kind, ())
        found += models if isinstance(models, tuple) else [models]
    return found


def has_own_encoder(kind: Any) -> bool:
    """Whether transformers has a class that is the encoder of texts alone, for a class of
    configurations."""
    return kind in AutoModelForTextEncoding._model_mapping


def without_pooler(kind: Any) -> dict[str, bool]:
    """What a model's class is told so that it has no pooler, whose weights nothing here needs."""
    takes = inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def examine(model: Any, pad_id: int) -> Architecture:
    """Runs a model to find out what it is.

    Args:
        model: in float32 and evaluation mode.
        pad_id: what texts are padded with.

    Raises ExportError if it cannot be run on texts, has no vector per token, or if a token's hidden
    states depend on the padding beside it.
    """
    config = model.config.get_text_config()
    plain = _plainly(model)
    alone = _alone(model, plain)
    _check_states(model, alone)
    _check_padding(model, plain, alone, pad_id)
    forward = _how_to_call(model, plain, alone, pad_id)
    hidden = alone[0]
    dim = hidden[-1].shape[-1]
    heads = getattr(config, "num_attention_heads", None)
    heads = heads if isinstance(heads, int) and heads > 0 else 1
    table = _table(model, TYPE_TABLES) if forward.takes_types else None
    return Architecture(
        num_layers=len(hidden) - 1,
        dim=dim,
        attention_heads=math.gcd(dim, heads),
        max_length=_max_length(model, config, forward),
        token_types=None if table is None else table.num_embeddings,
        forward=forward,
    )


def weights_that_matter(model: Any) -> set[str]:
    """Names of the parameters that some hidden state depends on."""
    ids = torch.arange(5) % model.get_input_embeddings().num_embeddings
    found = _hidden_states(
        model, {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    )
    named = dict(model.named_parameters(remove_duplicate=False))
    total = torch.stack([hidden.sum() for hidden in found]).sum()
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name for name, slope in zip(named, slopes, strict=True) if slope is not None}


def layer_stack(model: nn.Module, num_layers: int) -> nn.ModuleList | None:
    """The model's layers, of which each makes a hidden state; None if they are not in one list."""
    stacks = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    return max(stacks, key=_num_weights, default=None)


def inner_size(layer: nn.Module) -> int:
    """The inner size of a layer's dense stages: the most that one of its products sums over."""
    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    if linear:
        return max(module.in_features for module in linear)
    return max(max(p.shape) for p in layer.parameters() if p.ndim > 1)  # convolutions of size 1


def _num_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _plainly(model: Any) -> Forward:
    """With token ids and their mask alone: what any model takes."""
    takes = inspect.signature(model.forward).parameters
    return Forward(False, False, {"use_cache": False} if "use_cache" in takes else {})


def _how_to_call(
    model: Any, plain: Forward, alone: list[tuple[torch.Tensor, ...]], pad_id: int
) -> Forward:
    """The way that leaves least in a graph, of those that compute the same as the plain one."""
    best = plain
    typed = replace(plain, takes_types=True)
    # A type of one row for all tokens: a model may want types in full.
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    if takes_types and _is_same(model, typed, alone, pad_id):
        best = typed
    # Within a window a token sees some others only: what is added would take its place.
    is_windowed = any(
        value and ("window" in key or key in ("local_attention", "layer_types"))
        for key, value in model.config.get_text_config().to_dict().items()
    )
    other = replace(best, attention=WINDOWED) if is_windowed else replace(best, takes_bias=True)
    return other if _is_same(model, other, alone, pad_id) else best


def _rows(model: Any) -> list[torch.Tensor]:
    """Token ids of the probes; any will do that are no padding."""
    count = model.get_input_embeddings().num_embeddings
    return [(torch.arange(length) % 7 + 5) % count for length in PROBE_LENGTHS]


def _alone(model: Any, forward: Forward) -> list[tuple[torch.Tensor, ...]]:
    """Hidden states of each probe, run by itself."""
    return [_run(model, forward, row[None], torch.ones_like(row)[None]) for row in _rows(model)]


def _together(model: Any, forward: Forward, pad_id: int) -> list[tuple[torch.Tensor, ...]]:
    """As `_alone`, all in one batch."""
    rows = _rows(model)
    ids = torch.full((len(rows), max(PROBE_LENGTHS)), pad_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : row.numel()], mask[i, : row.numel()] = row, 1
    found = _run(model, forward, ids, mask)
    return [
        tuple(hidden[i : i + 1, : row.numel()] for hidden in found) for i, row in enumerate(rows)
    ]


def _check_states(model: Any, alone: list[tuple[torch.Tensor, ...]]) -> None:
    """Raises ExportError if there is not one vector of numbers for each token."""
    name = model.config.model_type
    if not all(state.isfinite().all() for hidden in alone for state in hidden):
        raise ExportError(
            "transformers itself computes NaN or infinity for a few tokens. Its weights are "
            "damaged: get them again."
        )
    for row, hidden in zip(_rows(model), alone, strict=True):
        if any(state.shape[:2] != (1, row.numel()) for state in hidden):
            raise ExportError(
                f"model type {name!r}: has no vector for each token in every hidden state, which "
                "is what features are made of. Take another encoder."
            )


def _check_padding(
    model: Any, forward: Forward, alone: list[tuple[torch.Tensor, ...]], pad_id: int
) -> None:
    name = model.config.model_type
    together = _together(model, forward, pad_id)
    error = _error(together, alone)
    if not error <= TOLERANCE:
        raise ExportError(
            f"model type {name!r}: a token's hidden states depend on the padding beside it (by "
            f"{error:.0%}), so texts would have other features in other batches. Take another "
            "encoder."
        )


def _is_same(
    model: Any, forward: Forward, alone: list[tuple[torch.Tensor, ...]], pad_id: int
) -> bool:
    """Whether this way gives the same hidden states, alone and in a batch."""
    try:
        found = [_alone(model, forward), _together(model, forward, pad_id)]
    except (ExportError, ValueError):
        return False
    return all(_error(states, alone) <= SAME for states in found)


def _error(got: list[tuple[torch.Tensor, ...]], expected: list[tuple[torch.Tensor, ...]]) -> float:
    """The largest of all texts and hidden states, relative; infinite where the shapes differ."""
    worst = 0.0
    for of_got, of_expected in zip(got, expected, strict=True):
        for one, other in zip(of_got, of_expected, strict=True):
            if one.shape != other.shape:
                return math.inf
            error = float((one - other).norm() / other.norm())
            worst = max(worst, math.inf if math.isnan(error) else error)
    return worst


def _max_length(model: Any, config: Any, forward: Forward) -> int | None:
    """What the table of positions has room for, or config.json says where there is none."""
    table = _table(model, POSITION_TABLES)
    stated = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    limits = [value for value in stated if isinstance(value, int) and value > 0]
    if table is None:
        return min(limits, default=None)
    most = min([table.num_embeddings, *limits])
    if most > MAX_TRIED_LENGTH:
        return most - (0 if table.padding_idx is None else table.padding_idx + 1)
    if _reads(model, forward, most):
        return most
    fits, fails = 0, most  # positions may begin behind the padding's
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _reads(model, forward, middle) else (fits, middle)
    return fits


def _reads(model: Any, forward: Forward, length: int) -> bool:
    ids = torch.full((1, length), int(_rows(model)[0][0]))
    try:
        _run(model, forward, ids, torch.ones_like(ids))
    except ExportError:
        return False
    return True


def _table(model: nn.Module, names: tuple[str, ...]) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith(names) and isinstance(module, nn.Embedding):
            return module
    return None


def _run(
    model: Any, forward: Forward, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode(), attention_of(model, forward.attention):
        return _hidden_states(model, forward.inputs(ids, mask, None, torch.float32))


def _hidden_states(model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    name = model.config.model_type
    try:
        output = model(**inputs, output_hidden_states=True, return_dict=True)
    except Exception as error:  # whatever torch and the model's own code raise
        raise ExportError(
            f"model type {name!r}: cannot be run on token ids alone ({first_line(error)}). Look at "
            "its config.json; expected an encoder of texts."
        ) from error
    # Of an encoder-decoder they have other names.
    found = getattr(output, "hidden_states", None)
    if not found:
        raise ExportError(f"model type {name!r}: gives no hidden states. Take another encoder.")
    return tuple(found)
