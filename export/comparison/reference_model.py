"""What the encoder computes, as transformers itself says: the judge of a build.

The model and its tokenizer are called as any user of transformers calls them: one text at a time,
no padding, the default attention. Nothing here is shared with what makes or feeds the graph
(`HiddenStates`, `TextTokenizer`), so a mistake made there cannot be made here, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

from bitheads.engine.types import Text
from bitheads.export.comparison.reference_embedding import reference_embedding
from bitheads.export.errors import ExportError, first_line
from bitheads.export.source.sentence_modules import SentenceModules

ReferenceTokens = Mapping[str, list[int]]
"""A text as the model is given it: input_ids, and what else its tokenizer makes."""


@dataclass(frozen=True, eq=False)
class ReferenceStates:
    """What the model makes of a text.

    Attributes:
        layers: the chosen hidden states, float32 [tokens, dim] each.
        embedding: float32 [embedding dim]; None where nobody asked.
    """

    layers: list[NDArray[np.float32]]
    embedding: NDArray[np.float32] | None


class ReferenceModel:
    """transformers' model and tokenizer of an encoder, in float32."""

    def __init__(
        self,
        source: str,
        max_length: int,
        prefix: str = "",
        modules: SentenceModules | None = None,
    ) -> None:
        """
        Args:
            source: the folder that `AutoModel.from_pretrained` takes.
            max_length: most tokens of a text.
            prefix: of every text, and of a pair's first: joined as users of transformers join it.
            modules: what makes embeddings of the last hidden states; None: there are none.

        Raises ExportError if transformers cannot load it.
        """
        self._source = source
        self._max_length = max_length
        self._prefix = prefix
        self._modules = modules
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            if _is_lower_case(Path(source)):
                _lower_case(self._tokenizer.backend_tokenizer)
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            # Of an encoder-decoder, transformers' own class of its encoder.
            has_encoder = type(config) in AutoModelForTextEncoding._model_mapping
            auto = AutoModelForTextEncoding if has_encoder else AutoModel
            model = auto.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
        except Exception as error:  # transformers has no base of its own for them
            raise ExportError(
                f"encoder {source!r}: transformers cannot load it: {error}"
            ) from error
        self._model = model.eval()

    def tokens(self, text: Text) -> ReferenceTokens:
        """The tokens of a text or a pair, cut to the maximum length."""
        first, *second = (text,) if isinstance(text, str) else text
        encoded: ReferenceTokens = self._tokenizer(
            self._prefix + first, *second, truncation=True, max_length=self._max_length
        )
        return encoded

    def states(self, tokens: ReferenceTokens, layers: tuple[int, ...]) -> ReferenceStates:
        """What the model makes of a text's tokens, of which there are some.

        To be called from several threads at once.

        Raises ExportError if the model cannot run it, or gives what is no number.
        """
        inputs = {name: torch.tensor([values]) for name, values in tokens.items()}
        try:
            with torch.inference_mode():
                found = self._model(**inputs, output_hidden_states=True, return_dict=True)
        except Exception as error:  # whatever torch and the model's own code raise
            raise ExportError(
                f"encoder {self._source!r}: transformers itself cannot run it on "
                f"{self._show(tokens)} ({first_line(error)}). Look at its config.json, "
                "and at whether the tokenizer belongs to it."
            ) from error
        hidden = [found.hidden_states[layer][0].numpy() for layer in layers]
        if not all(np.isfinite(states).all() for states in hidden):
            raise ExportError(
                f"encoder {self._source!r}: transformers itself computes NaN or infinity for "
                f"{self._show(tokens)}. Its weights are damaged: get them again."
            )
        embedding = None
        if self._modules is not None:
            made = reference_embedding(self._modules, found.last_hidden_state[0])
            embedding = made.numpy()
        return ReferenceStates(hidden, embedding)

    def _show(self, tokens: ReferenceTokens) -> str:
        return repr(self._tokenizer.decode(tokens["input_ids"]))[:80]


def _is_lower_case(folder: Path) -> bool:
    """Whether sentence-transformers would make texts lower case."""
    return any(
        json.loads(path.read_text(encoding="utf-8")).get("do_lower_case")
        for path in folder.glob("sentence_*_config.json")
    )


def _lower_case(tokenizer: Tokenizer) -> None:
    """As sentence-transformers does it, in its Transformer module."""
    lower, usual = normalizers.Lowercase(), tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([lower, usual] if usual else [lower])
