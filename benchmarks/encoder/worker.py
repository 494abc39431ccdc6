"""The process of one contender: built once, then asked for one thing at a time, line by line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import memory

PACKAGES = {
    "ctranslate2": "ctranslate2",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "optimum-intel": "optimum.intel",
    "optimum-onnx": "optimum.onnxruntime",
    "sentence-transformers": "sentence_transformers",
    "torch": "torch",
    "transformers": "transformers",
}
"""Distribution -> its module. An environment of its own may have others than the parent has."""


class Runner(Protocol):
    """A contender, loaded.

    Attributes:
        gives: what its signs are of: "pooled" (the codes), "last" (the last layer), or nothing.
    """

    gives: str | None

    def encode(self) -> None:
        """Does the work once: all texts, from strings on."""

    def padding_share(self) -> float | None:
        """Of the tokens that were computed, None where it cannot be known."""

    def signs(self, what: str) -> NDArray[np.uint8]:
        """Packed signs of all tokens, uint8 [tokens, code_bytes], in the order of the texts."""


@runtime_checkable
class Staged(Protocol):
    """A contender that knows where its time goes."""

    def stages(self) -> dict[str, float]:
        """Seconds of each stage."""


def main() -> None:
    """Builds what the first line asks for; answers each further line with one."""
    answers = _own_stdout()
    request = json.loads(sys.stdin.readline())
    try:
        module = import_module(f"benchmarks.encoder.runners.{request['module']}")
        runner: Runner = module.make(request)
    except Exception as error:  # a missing package, or one that refuses this encoder
        reason = next(iter(str(error).strip().splitlines()), "")
        _say(answers, {"skipped": f"{type(error).__name__}: {reason}"[:300]})
        return
    _say(answers, {"gives": runner.gives, "versions": _versions()})
    for line in sys.stdin:
        command = json.loads(line)
        done = COMMANDS[command["do"]](runner, command)
        _say(answers, done)


def _versions() -> dict[str, str]:
    """Of the packages that the contender has loaded."""
    return {name: version(name) for name, module in PACKAGES.items() if module in sys.modules}


def _encode(runner: Runner, command: dict[str, Any]) -> dict[str, Any]:
    runner.encode()
    return {}


def _costs(runner: Runner, command: dict[str, Any]) -> dict[str, Any]:
    return {"peak_rss_bytes": memory.peak_bytes(), "padding_share": runner.padding_share()}


def _stages(runner: Runner, command: dict[str, Any]) -> dict[str, Any]:
    return runner.stages() if isinstance(runner, Staged) else {}


def _signs(runner: Runner, command: dict[str, Any]) -> dict[str, Any]:
    np.save(Path(command["file"]), runner.signs(command["what"]))
    return {}


COMMANDS: dict[str, Callable[[Runner, dict[str, Any]], dict[str, Any]]] = {
    "encode": _encode,
    "costs": _costs,
    "stages": _stages,
    "signs": _signs,
}


def _own_stdout() -> TextIO:
    """Standard output for answers alone: what libraries print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
