"""All contenders on one encoder and the same texts, in turn, each in a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.encoder.contenders import OURS, PEAK, PEER, REFERENCE, Contender
from benchmarks.encoder.process import Process
from benchmarks.figures import flops, turns
from benchmarks.figures.rounding import rounded
from benchmarks.figures.turns import Samples, in_turn
from benchmarks.inputs.shapes import Shape
from bitheads.engine import bundle

Say = Callable[[str], None]
BUDGET_S = 24 * 3600.0
"""Seconds that the rounds may take: as many as are asked for are taken."""


@dataclass(frozen=True)
class Job:
    """What all contenders are given.

    Attributes:
        source: folder or name of the source model; None where weights are seeded.
        shape: of the encoder, to count its multiplications.
        lengths: tokens of each text.
        matmul_size: rows and columns of the product that is the machine's peak.
        python: of an environment for sentence-transformers, None for this one's.
        rounds: in which each contender has one turn.
    """

    bundle: Path
    source: str | None
    shape: Shape
    texts: Sequence[str]
    lengths: Sequence[int]
    threads: int
    matmul_size: int
    rounds: int
    python: Path | None = None

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def python_of(self, contender: Contender) -> Path:
        """The interpreter of its process."""
        if contender.own_python and self.python is not None:
            return self.python
        return Path(sys.executable)

    def request(self, contender: Contender, texts_file: Path) -> dict[str, Any]:
        manifest = bundle.read_manifest(self.bundle)
        return {
            "module": contender.module,
            "precision": contender.precision,
            **contender.options,
            "bundle": str(self.bundle.resolve()),
            "source": self.source,
            "shape": None if self.source is not None else asdict(self.shape),
            "texts": str(texts_file),
            "max_length": manifest.encoder.max_length,
            "prefix": manifest.spec.prefix,
            "threads": self.threads,
            "matmul_size": self.matmul_size,
        }


def measure(job: Job, contenders: Sequence[Contender], say: Say) -> dict[str, Any]:
    """What each took, and who was skipped and why."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        texts_file = folder / "texts.json"
        texts_file.write_text(json.dumps(list(job.texts)), encoding="utf-8")
        running: dict[str, Process] = {}
        skipped: dict[str, str] = {}
        for i, contender in enumerate(contenders):
            request, log = job.request(contender, texts_file), folder / f"{i}.log"
            running[contender.name] = stack.enter_context(
                Process(contender.name, request, log, job.python_of(contender))
            )
        for process in list(running.values()):
            process.ready()
            if process.skipped is not None:
                say(f"  {process.name}: skipped, {process.skipped}")
                skipped[process.name] = process.skipped
                del running[process.name]
        taking_part = [contender for contender in contenders if contender.name in running]
        say(f"timing {len(taking_part)} contenders")
        samples = in_turn(
            {c.name: turns.Contender(running[c.name].encode, _work(c, job)) for c in taking_part},
            job.rounds,
            budget_s=BUDGET_S,
        )
        costs = {name: process.costs() for name, process in running.items()}
        stages = {name: process.stages() for name, process in running.items()}
        agreement = {}
        if job.source is not None:  # signs of random weights mean nothing
            say("comparing signs")
            agreement = _agreement(running, folder)
    rows = _rows(job, taking_part, samples)
    for name, row in rows.items():
        row |= {**costs[name], **agreement.get(name, {})}
        padding = row["padding_share"]
        row["padding_share"] = None if padding is None else rounded(padding)
        if stages[name]:
            row["stages_s"] = {stage: rounded(s) for stage, s in stages[name].items()}
        row["versions"] = running[name].versions
    return {
        "texts": len(job.texts),
        "tokens": job.tokens,
        "longest": max(job.lengths),
        "rounds": len(next(iter(samples.values()))),
        "contenders": rows,
        "skipped": skipped,
        "peak_gflops": {
            str(c.precision): rounded(peak_gflops(job.matmul_size, samples.median_us(c.name)))
            for c in taking_part
            if c.role == PEAK
        },
        "ours": _ours(taking_part, samples),
    }


def peak_gflops(size: int, us: float) -> float:
    """GFLOP/s of a product of two square matrices."""
    return 2 * size**3 / us / 1e3


def gflops(shape: Shape, lengths: Sequence[int], us: float) -> float:
    """GFLOP/s of texts through an encoder; padding is no work."""
    return 2 * sum(flops.encoder(shape, length) for length in lengths) / us / 1e3


def same_signs(got: NDArray[np.uint8], expected: NDArray[np.uint8], dim: int) -> float | None:
    """Share of equal signs, None if they are not of the same tokens.

    Args:
        got, expected: packed, uint8 [tokens, code_bytes]; bits past `dim` are zero.
    """
    if got.shape != expected.shape:
        return None
    # A byte at a time: counting bits in a table takes no more memory than the codes.
    different = int(_BITS[got ^ expected].sum(dtype=np.int64))
    return 1 - different / (len(got) * dim)


_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _work(contender: Contender, job: Job) -> float:
    return 1.0 if contender.role == PEAK else float(job.tokens)


def _ours(contenders: Sequence[Contender], samples: Samples) -> str:
    """Our fastest in floating point, which the others are compared with, ours in int8, too."""
    quantized = bundle.QUANTIZED_GRAPHS
    names = [c.name for c in contenders if c.role == OURS and c.precision not in quantized]
    return min(names, key=samples.median_us)


def _rows(job: Job, contenders: Sequence[Contender], samples: Samples) -> dict[str, Any]:
    ours = _ours(contenders, samples)
    peaks = {
        c.precision: peak_gflops(job.matmul_size, samples.median_us(c.name))
        for c in contenders
        if c.role == PEAK
    }
    rows = {}
    for contender in contenders:
        if contender.role == PEAK:
            continue
        name = contender.name
        us_per_token = samples.median_us(name)
        us = us_per_token * job.tokens
        rate = gflops(job.shape, job.lengths, us)
        peak = peaks.get(contender.precision)
        rows[name] = {
            "role": contender.role,
            "precision": contender.precision,
            "us_per_token": samples.summary(name),
            "tokens_per_s": rounded(1e6 / us_per_token),
            "texts_per_s": rounded(1e6 * len(job.texts) / us),
            "times_ours": rounded(samples.ratio(name, ours)),
            "gflops": rounded(rate),
            "percent_of_peak": None if peak is None else rounded(100 * rate / peak),
        }
    return rows


def _agreement(running: dict[str, Process], folder: Path) -> dict[str, dict[str, Any]]:
    """Each contender's signs against those of torch in fp32."""
    if REFERENCE not in running:
        return {}
    expected = {what: running[REFERENCE].signs(what, folder) for what in ("pooled", "last")}
    dims = 8 * expected["last"].shape[1]
    found = {}
    for name, process in running.items():
        if process.gives is not None and name != REFERENCE:
            share = same_signs(process.signs(process.gives, folder), expected[process.gives], dims)
            found[name] = {
                "signs_of": process.gives,
                "sign_agreement": None if share is None else round(share, 6),
            }
    return found


def best_peers(rows: dict[str, Any], ours: str) -> dict[str, str | None]:
    """The fastest in fp32, and of any precision with signs at least as good as ours.

    The reference itself agrees with itself; peers whose signs are unknown do not count as good.
    """
    peers = {name: row for name, row in rows.items() if row["role"] == PEER}

    def fastest(names: list[str]) -> str | None:
        return min(names, key=lambda name: peers[name]["times_ours"], default=None)

    agreement = {name: row.get("sign_agreement") or 0.0 for name, row in rows.items()}
    agreement[REFERENCE] = 1.0
    return {
        "fp32": fastest([name for name, row in peers.items() if row["precision"] == "fp32"]),
        "as exact": fastest([name for name in peers if agreement[name] >= agreement[ours]]),
        "any": fastest(list(peers)),
    }
