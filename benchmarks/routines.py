"""The one list of benchmarks. A name is a folder beside this file, with these modules:

    measure   `run(options)` measures and stores the result
    options   `add_options(parser)`, where it has any, and `SHOWN`, those that the stored command
              has (benchmarks.options.command); --help imports it, so it imports little
    table     `BLOCKS`, what the pages show of its results, if they show any

The command line, the tables, and what a page says until something is measured all come from here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from benchmarks.pages.block import Block


@dataclass(frozen=True)
class Routine:
    """One benchmark. Its modules are imported when they are needed: some take seconds.

    Attributes:
        name: of its folder and its stored result, and on the command line.
        not_run: what a page says while there is no stored result.
    """

    name: str
    help: str
    not_run: str = "**Not yet measured**"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        if module := self._module("options"):
            module.add_options(parser)

    def run(self, options: argparse.Namespace) -> None:
        import_module(f"benchmarks.{self.name}.measure").run(options)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the pages show of it."""
        module = self._module("table")
        return () if module is None else module.BLOCKS

    @property
    def placeholder(self) -> str:
        """What its blocks say until it has run."""
        return f"{self.not_run}: `python -m benchmarks {self.name}` fills this in."

    def _module(self, part: str) -> ModuleType | None:
        name = f"benchmarks.{self.name}.{part}"
        return None if find_spec(name) is None else import_module(name)


ROUTINES = (
    Routine("pack", "pool_and_pack at every level, beside a copy of its input"),
    Routine("plan", "time and size of TensorRT-RTX plans; needs no GPU"),
    Routine("parity", "sign agreement with torch in fp32"),
    Routine("model_types", "each model type: signs, C++ tokenizer, plan; no times, needs no GPU"),
    Routine("host_parity", "the C++ host beside Python on real texts; no times"),
    Routine("host_words", "words and their tokens in C++ beside Python, by tokenizer; no times"),
    Routine("accuracy", "train and measure the shipped heads"),
    Routine("few_shot", "heads of few and of many examples, beside linear models of scikit-learn"),
    Routine("table3", "the paper's Table 3, and the encoder for all tasks as an engine serves it"),
    Routine("heads", "task heads at every level, beside torch, NumPy and the encoder"),
    Routine("storage", "bytes that the features of 50 tokens take"),
    Routine("backfill", "new tasks over a feature store, beside the kernel and re-encoding"),
    Routine("tasks", "cost by number of tasks, from what `heads` stored, and a picture of it"),
    Routine("memory", "peak memory of encoding few and many texts"),
    Routine("pairs", "pairs as two texts, beside pairs that are encoded together"),
    Routine("spans", "words beside tokenizing, and heads per word"),
    Routine("search", "search by the signs of embeddings: recall, and times of FAISS and USearch"),
    Routine("latency", "one short text with all heads, and the first answer of a process"),
    Routine("encoder", "texts in, codes out, beside other libraries on the same texts"),
    Routine("long_texts", "texts of up to 8,192 tokens, with attention in windows and without"),
    Routine("serve", "the server under load from another process, beside the bare engine"),
    Routine("overload", "the server's memory and answers when asked twice what it can do"),
    Routine("roofline", "predicted times on known GPUs; computed, needs no GPU"),
    Routine("device_code", "registers, spills and load widths of the CUDA kernels; needs no GPU"),
    Routine(
        "gpu",
        "everything that needs a GPU, in one report; see docs/gpu.md",
        not_run="**Not yet run on a GPU**, so there is nothing to show here",
    ),
)
