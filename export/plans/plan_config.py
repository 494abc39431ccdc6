"""What plan to build: the --plan options of `bitheads build` and `plan` as a checked value."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitheads.engine.bundle import GPU_GRAPHS
from bitheads.engine.device.plan import MODULES
from bitheads.engine.device.plan_compatibility import (
    AMPERE_PLUS,
    COMPATIBILITIES,
    check_compatibility,
)
from bitheads.engine.device.profile import Profile
from bitheads.engine.errors import PlanError
from bitheads.export.errors import ExportError

CHOICES = ("auto", *MODULES, "none")
MAX_TOKENS = 8192
"""Tokens of a batch, padding included, that the default profiles are fastest for: a large encoder
fills a large GPU with them."""
SHORTEST_BUCKET = 32
LATENCY_SEQ = 64
"""Length of a single text that its profile is fastest for."""


@dataclass(frozen=True)
class PlanConfig:
    """The plan to build.

    Attributes:
        flavour: a key of engine.device.plan.MODULES, "none", or "auto", see `choose_flavour`.
        capabilities: compute capabilities to build for; none for the flavour's default.
        profiles: the batches to build for; none for `default_profiles`.
        precision: of products with weights: a key of engine.bundle.GPU_GRAPHS, or None for that of
            the bundle's own graph. A build of a bundle writes the graph, too, also without a plan.
        compatibility: what else it is to run on, see engine.device.plan_compatibility; `tensorrt`
            only.
        workspace_gib: most memory a kernel may take for itself; None for TensorRT's default.
        timing_cache: file of kernel timings to read and write; `tensorrt` only.
    """

    flavour: str = "auto"
    capabilities: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    precision: str | None = None
    compatibility: tuple[str, ...] = ()
    workspace_gib: float | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.flavour not in CHOICES:
            raise ExportError(f"--plan: got {self.flavour!r}, expected one of {CHOICES}.")
        for capability in self.capabilities:
            if not re.fullmatch(r"\d{1,2}\.\d", capability):
                raise ExportError(
                    f"--plan-capabilities: got {capability!r}, expected a form like 8.6,12.0."
                )
        if self.precision not in (None, *GPU_GRAPHS):
            raise ExportError(
                f"--plan-precision: got {self.precision!r}, expected one of {[*GPU_GRAPHS]}."
            )
        if self.precision == "fp8" and AMPERE_PLUS in self.compatibility:
            raise ExportError(
                f"--plan-compatibility {AMPERE_PLUS}: got --plan-precision fp8 with it, which GPUs "
                "below 8.9 do not have. Take same-compute-capability, or --plan-precision int8."
            )
        try:
            check_compatibility(self.compatibility)
        except PlanError as error:
            raise ExportError(f"--plan-compatibility: {error}") from error
        if self.workspace_gib is not None and not 0 < self.workspace_gib < 1024:
            raise ExportError(
                f"--plan-workspace: got {self.workspace_gib}, expected GiB above 0, below 1024."
            )
        sizes = (self.profiles, self.workspace_gib, self.timing_cache)
        if self.flavour == "none" and any((self.capabilities, self.compatibility, *sizes)):
            raise ExportError("--plan none: got other --plan options with it. Leave them out.")

    def check_max_length(self, max_length: int) -> None:
        """Raises ExportError for profiles of more tokens than the encoder reads."""
        for profile in self.profiles:
            if profile.max[1] > max_length:
                raise ExportError(
                    f"--plan-profile {profile}: got {profile.max[1]} tokens, expected at most "
                    f"{max_length}, the bundle's max_length."
                )


NO_PLAN = PlanConfig(flavour="none")


def default_profiles(max_length: int) -> tuple[Profile, ...]:
    """One profile for a single text of any length, then one for each range of lengths.

    Ranges end at 32, 64, 128, ... and `max_length`. Each is fastest for MAX_TOKENS of its longest
    texts and takes twice as many rows, so MAX_TOKENS of its shortest texts fit as well. None takes
    fewer tokens than one before it, or `engine.device.profile.choose_profile` would not choose by
    length.
    """
    profiles = [Profile((1, 1), (1, min(LATENCY_SEQ, max_length)), (1, max_length))]
    seq = min(SHORTEST_BUCKET, max_length)
    while True:
        rows = -(-MAX_TOKENS // seq)
        profiles.append(Profile((1, 1), (rows, seq), (2 * rows, seq)))
        if seq == max_length:
            return tuple(profiles)
        seq = min(2 * seq, max_length)


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """The options `plan_config` reads, the same in every command that builds plans."""
    add = parser.add_argument_group("TensorRT plan").add_argument
    add(
        "--plan",
        choices=CHOICES,
        default="auto",
        help="tensorrt builds for the GPU it runs on; tensorrt-rtx needs none and builds for "
        "several of compute capability 8.x and 12.x; auto takes the first of these that works, or "
        "none (default: %(default)s)",
    )
    add(
        "--plan-capabilities",
        type=_comma_separated,
        default=(),
        metavar="C,C,...",
        help="with tensorrt-rtx: compute capabilities to build for, such as 8.6,8.9,12.0 "
        "(default: all it knows from 8.0 on; it makes no larger plan)",
    )
    add(
        "--plan-profile",
        type=_profile,
        action="append",
        default=[],
        metavar="MIN,OPT,MAX",
        help="batches to build for, as rows x tokens: 1x1,16x64,64x64 serves up to 64 texts of up "
        "to 64 tokens and is fastest at 16; give it again for more profiles (default: one for a "
        "single text, and one each for up to 32, 64, 128, ... tokens)",
    )
    add(
        "--plan-precision",
        choices=[*GPU_GRAPHS],
        help="products of weights in 8 bits: fp8 on compute capability 8.9 and from 9.0 on, int8 "
        "also on 8.0 and 8.6. `bitheads build` writes a graph for it, calibrated and compared as "
        "int8 is for CPUs; `bitheads plan` needs a bundle that has it (default: that of the graph)",
    )
    add(
        "--plan-compatibility",
        type=_compatibility,
        default=(),
        metavar="none|version|same-compute-capability|ampere+",
        help="with tensorrt, for a plan that a fleet shares: version runs on later versions of "
        "TensorRT, too; same-compute-capability on any model of GPU of this one's compute "
        "capability, ampere+ on any from 8.0 on; version,ampere+ is both. Each may be slower than "
        "a plan for one GPU and version, which is preferred where it fits (default: none)",
    )
    add(
        "--plan-workspace",
        type=float,
        metavar="GIB",
        help="most GPU memory a kernel may take for itself; lower it if the GPU is shared "
        "(default: TensorRT's)",
    )
    add(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="with tensorrt: keep measurements of kernels there, which makes the next build faster",
    )


def plan_config(options: dict[str, Any]) -> PlanConfig:
    """Takes the options of `add_plan_options` out of parsed arguments."""
    return PlanConfig(
        flavour=options.pop("plan"),
        capabilities=options.pop("plan_capabilities"),
        profiles=tuple(options.pop("plan_profile")),
        precision=options.pop("plan_precision"),
        compatibility=options.pop("plan_compatibility"),
        workspace_gib=options.pop("plan_workspace"),
        timing_cache=options.pop("timing_cache"),
    )


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _compatibility(text: str) -> tuple[str, ...]:
    names = () if text == "none" else _comma_separated(text)
    known = tuple(name for name in COMPATIBILITIES if name in names)
    if len(known) < len(names):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected none, or of {', '.join(COMPATIBILITIES)} one or, with a comma "
            "between them, version and another"
        )
    return known


def _profile(text: str) -> Profile:
    if not re.fullmatch(r"\d{1,6}x\d{1,6}(,\d{1,6}x\d{1,6}){2}", text):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected MIN,OPT,MAX like 1x1,16x64,64x64, rows x tokens each"
        )
    least, best, most = (
        (int(rows), int(seq)) for rows, seq in (part.split("x") for part in text.split(","))
    )
    try:
        return Profile(least, best, most)
    except PlanError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
