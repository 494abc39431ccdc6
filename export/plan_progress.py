"""A long TensorRT build: a bar while it runs, and an end when Ctrl-C asks for one."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm import tqdm

_POLL_S = 0.1


def build_serialized(trt: Any, builder: Any, network: Any, config: Any, progress: bool) -> Any:
    """Builds in a thread of its own, so that this one hears Ctrl-C; the builder holds no lock.

    Returns TensorRT's buffer, or None if it failed, which its logger tells more about. Raises
    KeyboardInterrupt once the builder has stopped: at its next step after Ctrl-C, or at a second
    Ctrl-C at once.
    """
    # A plain bar for people; nothing where stderr is a file.
    bar = tqdm(desc="plan", unit="step", disable=None if progress else True, leave=False)
    monitor = _monitor(trt, bar)
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
    with bar:
        try:
            thread.start()
            _wait(thread)
        except KeyboardInterrupt:
            monitor.cancelled = True
            print("stopping TensorRT at its next step", file=sys.stderr)
            _wait(thread)
    config.progress_monitor = None
    if monitor.cancelled:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]
    return results[0]


def _wait(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(_POLL_S)


def _monitor(trt: Any, bar: Any) -> Any:
    """TensorRT's view of the bar: its total grows with each phase that starts."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self._lock = threading.Lock()  # TensorRT may call from several threads
            self._left: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._left[phase_name] = num_steps
                bar.total = (bar.total or 0) + num_steps
                bar.set_postfix_str(phase_name, refresh=False)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._advance(phase_name, 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._advance(phase_name, self._left.get(phase_name, 0))
                self._left.pop(phase_name, None)

        def _advance(self, phase_name: str, steps: int) -> None:
            steps = min(steps, self._left.get(phase_name, 0))
            self._left[phase_name] = self._left.get(phase_name, 0) - steps
            bar.update(steps)

    return Monitor()
