"""Accuracy beside speed: signs as in torch fp32, labels as on the CPU, for each backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures.rounding import rounded
from benchmarks.gpu.context import Bench, labels
from benchmarks.gpu.outcome import Outcome, Skip, attempt
from benchmarks.gpu.speed import Open
from bitheads.engine import Engine, bundle
from bitheads.engine.features.pack import pack_layers
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.engine.types import Text

MAX_TEXTS = 500


def compare(bench: Bench, contenders: Mapping[str, Open]) -> dict[str, Any]:
    """For each contender: share of signs as in torch fp32, and of top labels as on the CPU.

    The CPU's answers are the engine's on ONNX Runtime in fp32, from the same bundle.
    """
    texts = bench.shipped_texts[:MAX_TEXTS]
    with Engine.load(bench.bundle, backend="onnxruntime") as engine:
        on_cpu = labels(engine.predict(texts))
    expected: dict[str, Any] = {}

    def reference() -> dict[str, Any]:
        expected["codes"] = torch_codes(bench, texts)
        return {"tokens": len(expected["codes"])}

    outcomes: dict[str, Outcome] = {"torch fp32": attempt("  torch fp32 on the CPU", reference)}
    for name, opener in contenders.items():
        outcomes[name] = attempt(
            f"  accuracy of {name}",
            _of,
            bench,
            opener,
            texts,
            expected.get("codes"),
            on_cpu,
        )
    return {"texts": len(texts), "tasks": len(on_cpu), "contenders": outcomes}


def _of(
    bench: Bench,
    opener: Open,
    texts: list[Text],
    expected: NDArray[np.uint8] | None,
    on_cpu: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    with opener(bench) as predictor:
        found = compare_labels(labels(predictor.predict(texts)), on_cpu)
        if isinstance(predictor, Engine) and expected is not None:
            features = predictor.encode(texts)
            found["sign_agreement"] = sign_agreement(features, expected)
            # Two passes need not batch alike, but must give the same bits.
            again = predictor.encode(texts)
            found["same_bytes_again"] = bool((features.codes == again.codes).all())
            found["texts_alone"] = _alone(predictor, texts[:: max(1, len(texts) // 50)])
    return found


def _alone(engine: Engine, texts: list[Text]) -> dict[str, Any]:
    """Signs of texts encoded one by one against the same texts in a batch."""
    together = engine.encode(texts)
    alone = PackedFeatures.concat([engine.encode([text]) for text in texts])
    return {"texts": len(texts), "sign_agreement": sign_agreement(alone, together.codes)}


def sign_agreement(features: PackedFeatures, expected: NDArray[np.uint8]) -> float:
    """Share of equal signs. Raises Skip for codes that are no signs."""
    if features.spec.quantization is not Quantization.SIGN:
        raise Skip(f"only signs are compared, the bundle has {features.spec.quantization} codes.")
    different = np.bitwise_xor(features.codes, expected)
    num_different = int(np.unpackbits(different).sum())
    return round(1 - num_different / (len(expected) * features.spec.dim), 6)


def compare_labels(
    got: Mapping[str, NDArray[np.int64]], expected: Mapping[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """Share of texts with the same top label: of all tasks together, and of the worst task."""
    if not expected:
        raise Skip("the bundle has no heads to compare labels of.")
    same = {task: float(np.mean(got[task] == expected[task])) for task in expected}
    worst = min(same, key=same.__getitem__)
    return {
        "same_label": rounded(sum(same.values()) / len(same), 5),
        "worst_task": worst,
        "same_label_of_worst_task": rounded(same[worst], 5),
    }


def torch_codes(bench: Bench, texts: Sequence[Text]) -> NDArray[np.uint8]:
    """Codes of the source model's hidden states in fp32, uint8 [tokens, code_bytes]."""
    from bitheads.export.comparison.compared_texts import run_reference
    from bitheads.export.comparison.reference_model import ReferenceModel
    from bitheads.export.source.encoder import find_encoder, load_encoder

    spec, limit = bench.manifest.spec, bench.manifest.encoder.max_length
    encoder = load_encoder(bench.encoder)
    if encoder.weights_sha256 != spec.weights_sha256:
        raise Skip(f"--encoder {bench.encoder}: its weights are not those of {bench.bundle}.")
    reference = ReferenceModel(find_encoder(bench.encoder), limit, spec.prefix)
    named = {f"text {i}": text for i, text in enumerate(texts, 1)}
    states = run_reference(reference, bench.tokenizer, named, spec.layers, encoder.pad_id)
    count = int(states.lengths.sum())
    codes = np.empty((count, spec.code_bytes), np.uint8)
    pack_layers(  # all tokens as one row
        [layer[None] for layer in states.layers],
        np.array([count], np.int64),
        np.zeros(1, np.int64),
        codes,
        spec,
        bundle.read_calibration(bench.bundle, spec) or Calibration(),
    )
    return codes
