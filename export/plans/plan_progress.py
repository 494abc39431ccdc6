"""A long TensorRT build: what it is at while it runs, and an end when Ctrl-C asks for one."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm import tqdm

_POLL_S = 0.2
_FORMAT = "{desc}: {n_fmt} steps [{elapsed}]{postfix}"
"""Line of progress, without a share of the whole: TensorRT's phases start others, and none says how
long it takes."""


def build_serialized(trt: Any, builder: Any, network: Any, config: Any) -> Any:
    """Builds in a thread of its own, so that this one hears Ctrl-C; the builder holds no lock.

    Returns TensorRT's buffer, or None if it failed, which its logger tells more about. Raises
    KeyboardInterrupt once the builder has stopped: at its next step after Ctrl-C, or at a second
    Ctrl-C at once.
    """
    monitor = _monitor(trt)
    config.progress_monitor = monitor
    results: list[Any] = []
    errors: list[BaseException] = []

    def build() -> None:
        try:
            results.append(builder.build_serialized_network(network, config))
        except BaseException as error:  # to be raised by the thread that waits
            errors.append(error)

    # A daemon: a builder that does not stop must not keep the program from ending.
    thread = threading.Thread(target=build, name="TensorRT builder", daemon=True)
    try:
        thread.start()
        _wait(thread, monitor)
    except KeyboardInterrupt:
        monitor.cancelled = True
        print("stopping TensorRT at its next step", file=sys.stderr)
        _wait(thread, monitor)
    config.progress_monitor = None
    if monitor.cancelled:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]
    return results[0]


def _wait(thread: threading.Thread, monitor: Any) -> None:
    # disable=None: nothing where stderr is a file.
    with tqdm(desc="plan", bar_format=_FORMAT, disable=None, leave=False) as line:
        while thread.is_alive():
            thread.join(_POLL_S)
            line.n = monitor.steps
            line.set_postfix_str(" of ".join(reversed(monitor.phases[-2:])))


def _monitor(trt: Any) -> Any:
    """What TensorRT reports to, from any of its threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self.phases: list[str] = []
            self.steps = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.steps += 1
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.phases:
                self.phases.remove(phase_name)

    return Monitor()
