"""One process of `python -m benchmarks model_types`: one type, or one tokenizer.

What is refused is part of the answer; any other error ends the process, and is a row, too.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.inputs.model_types import REFUSED, TEXTS, TYPES, num_layers, save_encoder
from benchmarks.inputs.tokenizer_kinds import KINDS
from benchmarks.model_types.plan_kernels import FUSED_ATTENTION, count, plan_kernels
from benchmarks.model_types.signs import shares_of_signs
from benchmarks.processes import child
from bitheads.engine.bundle import GRAPH, read_manifest
from bitheads.engine.device.profile import Profile
from bitheads.engine.errors import BitheadsError
from bitheads.engine.types import Text
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.export.plans.build_plan import build_plan
from bitheads.export.plans.plan_config import PlanConfig
from bitheads.export.plans.tensorrt_module import is_installed
from bitheads.export.source.encoder import load_encoder
from bitheads.export.tokenizer.comparison import examine

PRECISIONS = ("fp32", "fp16")
FLAVOUR = "tensorrt-rtx"
PROFILE = Profile((1, 1), (4, 64), (8, 64))
MIN_SIGN_AGREEMENT = 0.99
"""Of the build itself, which also looks at bfloat16; random weights are hard on it."""


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """request: part ("types", "tokenizers" or "published") and name, of the last its file, too."""
    with TemporaryDirectory() as folder:
        if request["part"] == "types":
            return _type(request["name"], Path(folder))
        file = request.get("file")
        if file is None:
            KINDS[request["name"]]().save_pretrained(folder)
        try:
            return examine(Path(file or Path(folder) / "tokenizer.json")).to_json()
        except BitheadsError as error:
            return {"refused": _said(error, folder)}


def _type(name: str, folder: Path) -> dict[str, Any]:
    values = TYPES[name] if name in TYPES else REFUSED[name][0]
    source = save_encoder(name, values, folder / "source")
    try:
        load_encoder(str(source))
    except BitheadsError as error:
        return {"refused": _said(error, folder)}
    layers = num_layers(name)
    found: dict[str, Any] = {"layers": layers}
    for precision in PRECISIONS:
        output = folder / precision
        config = BuildConfig(
            encoder=str(source),
            output=output,
            precision=precision,
            layers=f"{layers - 1}-{layers}",
            min_sign_agreement=MIN_SIGN_AGREEMENT,
        )
        try:
            make_bundle(config)
        except BitheadsError as error:
            found[precision] = {"refused": _said(error, folder)}
            continue
        texts: list[Text] = list(TEXTS)
        if read_manifest(output).encoder.token_types == 2:
            texts.append(("a pair", "of two texts"))
        shares = shares_of_signs(source, output, texts)
        found[precision] = {"signs": {name: round(share, 6) for name, share in shares.items()}}
        if precision == "fp16" and is_installed(FLAVOUR):
            found["plan"] = _plan(output)
    return found


def _plan(bundle: Path) -> dict[str, Any]:
    config = PlanConfig(flavour=FLAVOUR, profiles=(PROFILE,))
    try:
        plan = build_plan(bundle, read_manifest(bundle), config)
    except BitheadsError as error:
        return {"refused": _said(error, bundle.parent)}
    assert plan is not None
    kernels = plan_kernels(bundle / GRAPH, PROFILE)
    return {
        "version": plan.info.version,
        "kernels": len(kernels),
        "fused_attention": count(kernels, FUSED_ATTENTION),
    }


def _said(error: BitheadsError, folder: Path | str) -> str:
    """Its message in one line, without the folder that is gone by then."""
    return " ".join(str(error).split()).replace(f"{folder}/", "")


if __name__ == "__main__":
    child.answer(measure)
