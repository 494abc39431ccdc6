"""Attention within windows, which costs what the windows hold and not what the text does.

In some models' layers a token sees only those near it. transformers computes such a layer as if it
saw all, and masks what lies outside: at 8,192 tokens 60 times too much. Here the layer asks for
`windowed_attention`, which `export.window_graph` writes as blocks of queries and the keys they see.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import eager_mask

MASKED_SCORE = -1e4
"""Added to the scores of what is not seen. exp(-1e4) is 0 in every type, and float16 holds it with
room to spare, where the usual lowest float16 becomes -inf once a negative score is added."""

WINDOWED = "bitheads_windowed"
"""What transformers calls this attention, for `model.set_attn_implementation`."""


@dataclass(frozen=True)
class Window:
    """What tokens see in a layer that has a window; takes the place of a mask.

    Attributes:
        mask: int64 [rows, seq], 1 for tokens, 0 for padding.
        before, after: how many tokens before and after itself a token sees.
    """

    mask: torch.Tensor
    before: int
    after: int


@torch.library.custom_op("bitheads::windowed_attention", mutates_args=())
def windowed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    before: int,
    after: int,
    scale: float,
) -> torch.Tensor:
    """Attention to `before` tokens before each token, itself, and `after` after it.

    Args:
        query, key, value: [rows, heads, seq, head size].
        mask: int64 [rows, seq], 1 for tokens, 0 for padding.

    Returns [rows, seq, heads, head size], in the queries' type; softmax is in float32.
    """
    at = torch.arange(query.shape[2], device=query.device)
    away = at[None, :] - at[:, None]
    seen = (away >= -before) & (away <= after) & (mask[:, None, None, :] != 0)
    scores = query @ key.transpose(2, 3) * scale
    scores = scores + torch.where(seen, 0.0, MASKED_SCORE).to(scores.dtype)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


@windowed_attention.register_fake
def _(query: torch.Tensor, key: Any, value: Any, mask: Any, *_: Any) -> torch.Tensor:
    rows, heads, seq, size = query.shape
    return query.new_empty(rows, seq, heads, size)


def _masks(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Any:
    """What a layer's attention is given as its mask, see transformers.masking_utils."""
    if attention_mask is None:
        raise ValueError("attention within windows wants the mask of a batch")
    local = options.get("local_size")
    before, after = _reach(mask_function, 8 if local is None else int(local))
    if local is not None and before is not None and after is not None:
        return Window(attention_mask.to(torch.int64), before, after)
    if local is None and before is None and after is None:
        return (1 - attention_mask[:, None, None, :].to(dtype)) * MASKED_SCORE
    options["allow_is_bidirectional_skip"] = False
    return eager_mask(
        batch_size,
        q_length,
        kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        dtype=dtype,
        **options,
    )


def _reach(mask_function: Callable[..., Any], window: int) -> tuple[int | None, int | None]:
    """How far a token sees back and ahead; None for as far as was looked.

    Asked in a thread of its own: in one that traces, tensors have no values.
    """

    def ask() -> tuple[int | None, int | None]:
        token = torch.tensor(4 * window)
        zero = torch.tensor(0)
        others = torch.arange(8 * window + 1)
        seen = mask_function(zero, zero, token, others).expand(others.shape)
        away = others[seen] - token
        before, after = -int(away.min()), int(away.max())
        if away.numel() != before + after + 1:
            raise ValueError("a token sees tokens apart from each other")
        return (
            None if before == 4 * window else before,
            None if after == 4 * window else after,
        )

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(ask).result()


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    position_bias: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A layer's attention, see transformers.AttentionInterface."""
    if any(option is not None for option in (softcap, s_aux, position_bias)):
        raise ValueError("attention within windows is of plain scores")
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(attention_mask, Window):
        window = attention_mask
        found: torch.Tensor = windowed_attention(
            query, key, value, window.mask, window.before, window.after, scale
        )
        return found, None
    scores = query @ key.transpose(2, 3) * scale + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(WINDOWED, _attention)
AttentionMaskInterface.register(WINDOWED, _masks)
