"""What `auto` means on this machine: each way to compute an encoder timed once, and remembered."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from bitheads.engine.errors import BackendError
from bitheads.engine.files.cache import FILE_MODE, open_own
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.sessions import (
    BACKENDS,
    EncoderSession,
    is_installed,
    load_file,
    supports_bf16,
)
from bitheads.engine.types import TokenBatch

TIMED_ROWS, TIMED_TOKENS = 16, 64
"""Rows of the batch that is timed, and tokens of each: the default budget, of a usual length."""

TIMED_CALLS, TIMED_S = 5, 1.0
"""Calls of each way, of which the fastest counts, and seconds after which there are no more."""

WORTH_CHANGING = 0.9
"""Share of the best way's time that another way must do with to be taken instead. Between two
that are as good, noise must not decide: their codes differ in some signs."""

_MAX_BYTES = 1 << 16
"""Bytes of a file with times, at most."""

Way = tuple[str, str]
"""Backend and precision."""

logger = logging.getLogger("bitheads")


def ways(backend: str, precision: str) -> list[Way]:
    """What was asked for may stand for these, best guess first; none of them is in int8.

    Those in int8 that a bundle and its user allow are `engine.sessions.agreement`'s.

    Args:
        backend, precision: see engine.sessions.open_session, where "auto" is the best guess.
    """
    backends = [b for b in BACKENDS if is_installed(b)] if backend == "auto" else [backend]
    if precision == "auto":
        return [
            (b, p) for b in backends for p in ("auto", "fp32") if p == "auto" or supports_bf16(b)
        ]
    return [(b, precision) for b in backends] if precision == "fp32" else [(backend, precision)]


def open_fastest(
    choices: Sequence[Way],
    open_way: Callable[[Way], EncoderSession],
    graph_sha256: str,
    folder: Path,
    threads: int | None,
    max_length: int,
) -> tuple[Way, EncoderSession]:
    """Opens the fastest of several ways; times them all if this machine has not done so yet.

    What was found is kept for this graph, processor, number of threads, and versions of the
    backends. A way that cannot be opened is not taken.

    Args:
        choices: at least one, best guess first.
        folder: where files with times are kept. One that cannot be read is written again, one
            that cannot be written is done without.
        threads: processor threads, None for all cores.
        max_length: most tokens of a text.

    Raises BackendError, the first way's, if none can be opened.
    """
    case = _case(choices, graph_sha256, threads)
    file = folder / f"{hashlib.sha256(json.dumps(case).encode()).hexdigest()[:32]}.json"
    known = _read(file, case, choices)
    if known is not None:
        try:
            return fastest(known), open_way(fastest(known))
        except BackendError:
            logger.warning("what was fastest here does not load any more; timing again")
    names = ", ".join(map(_name, choices))
    logger.info("timing %s: once for this bundle on this machine", names)
    best: EncoderSession | None = None
    times: dict[Way, float] = {}
    failure: BackendError | None = None
    for way in choices:
        try:
            session = open_way(way)
            times[way] = _time(session, max_length)
        except BackendError as error:
            failure = failure or error
            continue
        if best is None or fastest(times) == way:
            best = session  # the other's memory is freed: two are there at most
    if best is None:
        raise failure or BackendError("no way to compute the encoder was given.")
    logger.info("%s is taken", _name(fastest(times)))
    content = {**case, "seconds": {_name(way): s for way, s in times.items()}}
    try:
        write_whole(file, json.dumps(content, indent=1).encode(), FILE_MODE)
    except OSError as error:
        logger.info("what was found is not kept: %s", error)
    return fastest(times), best


def fastest(times: Mapping[Way, float]) -> Way:
    """The first, but for a later one that is clearly faster.

    Args:
        times: seconds of each, at least one, best guess first.
    """
    best, *others = times
    for way in others:
        if times[way] < WORTH_CHANGING * times[best]:
            best = way
    return best


def _time(session: EncoderSession, max_length: int) -> float:
    """Seconds of a batch. Raises BackendError if the session fails."""
    shape = TIMED_ROWS, min(TIMED_TOKENS, max_length)
    batch = TokenBatch(
        input_ids=np.zeros(shape, np.int64),
        attention_mask=np.ones(shape, np.int64),
        token_type_ids=np.zeros(shape, np.int64),
        lengths=np.full(shape[0], shape[1], np.int64),
    )
    seconds: list[float] = []
    started_s = time.perf_counter()
    try:
        session.run(batch)  # what the first call of a shape makes is there afterwards
        while len(seconds) < TIMED_CALLS:
            call_s = time.perf_counter()
            session.run(batch)
            seconds.append(time.perf_counter() - call_s)
            if time.perf_counter() - started_s > TIMED_S:
                break
    except Exception as error:  # each backend has its own
        raise BackendError(f"{session.backend} failed on a batch of {shape}: {error}") from error
    return min(seconds)


def _case(choices: Sequence[Way], graph_sha256: str, threads: int | None) -> dict[str, object]:
    return {
        "graph_sha256": graph_sha256,
        "processor": _processor(),
        "threads": threads or count_cores(),
        "versions": {b: _version(BACKENDS[b].package) for b in sorted({b for b, _ in choices})},
        "ways": [_name(way) for way in choices],
    }


def _version(module: str) -> str:
    """Asks the distribution of that name, which needs no import, or else the module itself."""
    try:
        return version(module)
    except PackageNotFoundError:  # another one has it, as onnxruntime-gpu has onnxruntime
        return str(import_quietly(module).__version__)


def _processor() -> str:
    for backend, row in BACKENDS.items():
        if row.names_processor and is_installed(backend):
            return str(load_file(backend).processor())
    return platform.processor() or platform.machine()


def _read(
    file: Path, case: Mapping[str, object], choices: Sequence[Way]
) -> dict[Way, float] | None:
    """The times in a file, None if it is not there, not sound, or of another case."""
    try:
        with open_own(file) as opened:
            content = json.loads(opened.read(_MAX_BYTES))
        seconds = content.pop("seconds")
        if content != case:
            return None
        found = {way: float(seconds[_name(way)]) for way in choices if _name(way) in seconds}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if found and all(s > 0 for s in found.values()) else None


def _name(way: Way) -> str:
    return " ".join(way)
