"""How a head's features are made of an encoder's layers (Sections 4 and 5 of the paper)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from bitheads.engine.features.spec import LayerPooling, Order, PositionPooling, Quantization
from bitheads.training.errors import ConfigError


class Codes(str, Enum):
    """How a feature is stored.

    `float`, `uint8`, `sign` and `vote` (signs before layer pooling) are the paper's, and `centred`
    and `median` those of `bitheads build --thresholds`. The rest are experiments: `rotated` takes
    signs behind a random rotation, `wide` behind two, which is twice the bits, `wide-raw` does so
    without centring first, and `two-bit` has two thresholds per feature. `wide-float` is no code:
    its heads are as large as those of `wide`, so it tells what of a gain is the head's.
    """

    FLOAT = "float"
    UINT8 = "uint8"
    SIGN = "sign"
    VOTE = "vote"
    CENTRED = "centred"
    MEDIAN = "median"
    ROTATED = "rotated"
    WIDE = "wide"
    WIDE_RAW = "wide-raw"
    WIDE_FLOAT = "wide-float"
    TWO_BIT = "two-bit"

    @property
    def quantization(self) -> Quantization:
        if self in (Codes.FLOAT, Codes.WIDE_FLOAT):
            return Quantization.FLOAT16
        return Quantization.UINT8 if self is Codes.UINT8 else Quantization.SIGN

    @property
    def order(self) -> Order:
        return Order.SIGN_THEN_VOTE if self is Codes.VOTE else Order.POOL_THEN_SIGN

    @property
    def is_rotated(self) -> bool:
        """Whether features are multiplied by random rotations."""
        return self in (Codes.ROTATED, Codes.WIDE, Codes.WIDE_RAW, Codes.WIDE_FLOAT)

    @property
    def width(self) -> int:
        """Stored features per feature of the encoder."""
        is_wide = self in (Codes.WIDE, Codes.WIDE_RAW, Codes.WIDE_FLOAT, Codes.TWO_BIT)
        return 2 if is_wide else 1


@dataclass(frozen=True)
class Recipe:
    """Layer pooling, position pooling and codes; written as `mean-4/attention/sign`.

    Attributes:
        num_layers: how many last layers `mean` pools; None where it is tuned on dev.
    """

    layer_pooling: LayerPooling
    num_layers: int | None
    position_pooling: PositionPooling
    codes: Codes

    def __str__(self) -> str:
        layers = str(self.layer_pooling)
        if self.num_layers is not None:
            layers += f"-{self.num_layers}"
        return f"{layers}/{self.position_pooling}/{self.codes.value}"

    @property
    def is_tuned(self) -> bool:
        """Whether how many layers are pooled is yet to be found."""
        return self.layer_pooling is LayerPooling.MEAN and self.num_layers is None

    def with_layers(self, num_layers: int) -> Recipe:
        """The recipe with the mean of so many last layers, if the number was to be found."""
        return replace(self, num_layers=num_layers) if self.is_tuned else self

    def layers(self, encoder_layers: int) -> tuple[int, ...]:
        """Hidden-state indices, ascending; 0 is the embedding layer.

        Raises ConfigError if the encoder has fewer.
        """
        wanted = {LayerPooling.LAST: 1, LayerPooling.LEARNED: encoder_layers + 1}.get(
            self.layer_pooling, self.num_layers
        )
        assert wanted is not None, f"{self} is tuned first"
        if wanted > encoder_layers + 1:
            raise ConfigError(
                f"{self}: got an encoder of {encoder_layers} layers, expected at least "
                f"{wanted - 1}. Pool fewer layers."
            )
        return tuple(range(encoder_layers + 1 - wanted, encoder_layers + 1))

    @staticmethod
    def parse(text: str) -> Recipe:
        """The recipe of a written form. Raises ConfigError."""
        match = re.fullmatch(r"(last|mean|learned)(?:-(\d+))?/(\w+)/([\w-]+)", text)
        try:
            if match is None:
                raise ValueError("not three words between slashes")
            pooling = LayerPooling(match[1])
            num_layers = None if match[2] is None else int(match[2])
            recipe = Recipe(pooling, num_layers, PositionPooling(match[3]), Codes(match[4]))
            if num_layers is not None and (pooling is not LayerPooling.MEAN or num_layers < 1):
                raise ValueError("only mean has a number of layers, at least 1")
            if pooling is LayerPooling.LEARNED and recipe.codes is not Codes.FLOAT:
                raise ValueError("learned weights are the task's own, so nothing can be stored")
        except ValueError as error:
            raise ConfigError(
                f"recipe {text!r}: {error}. Expected LAYERS/POSITION/CODES with last, mean, mean-4 "
                f"or learned; {', '.join(PositionPooling)}; {', '.join(c.value for c in Codes)}."
            ) from error
        return recipe
