"""The first process of a server that has several."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from socket import socket
from types import FrameType

from bitheads.engine.errors import BackendError, BitheadsError, InputError
from bitheads.engine.process.cores import allowed_processors, choose_threads, count_cores
from bitheads.engine.serve import server
from bitheads.engine.serve.logs import set_up
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.uploads import HeadFolder
from bitheads.engine.serve.whole import AllParts, Whole
from bitheads.engine.serve.workers.calls import RemotePart, answer_calls
from bitheads.engine.serve.workers.worker import Ready, Start, work

logger = logging.getLogger("bitheads.serve")


def serve(settings: Settings) -> None:
    """Serves with `settings.workers` processes until a signal, and then until all is answered.

    Raises InputError for more processes than cores or a port that cannot be had, BackendError if a
    process ends by itself, and what the first raised that could not start.
    """
    set_up(settings.log, os.getpid())
    with ExitStack() as stack:
        listening = stack.enter_context(server.listen(settings))
        if settings.grpc_port is not None:
            from bitheads.engine.serve.grpc_server import reserve_port

            reserved = stack.enter_context(reserve_port(settings))
            settings = replace(settings, grpc_port=reserved.getsockname()[1])
        workers = [_Worker(*share, listening) for share in share_out(settings)]
        _serve(workers, listening, settings, HeadFolder(settings.heads))


def _serve(
    workers: Sequence[_Worker],
    listening: socket,
    settings: Settings,
    folder: HeadFolder,
) -> None:
    with _ending_at_signals(workers, listening) as is_ending:
        try:
            for worker in workers:
                worker.start()
            ready = [worker.said() for worker in workers]
            whole = AllParts([RemotePart(worker.commands) for worker in workers], folder)
            for worker in workers:
                worker.go_on(whole)
            for worker in workers:
                worker.said()
            loaded = ready[0]
            assert isinstance(loaded, Ready), "it says nothing else"
            shown = f"{settings.bundle} on {loaded.backend}, {loaded.num_tasks} tasks"
            where = server.url(listening, settings)
            logger.info("%s: %s, %d processes", where, shown, len(workers))
            if settings.grpc_port is not None:
                from bitheads.engine.serve.grpc_server import address_of

                logger.info("gRPC on %s", address_of(settings))
            ended = wait([worker.process.sentinel for worker in workers])
        except (BitheadsError, OSError):
            if not is_ending():
                raise
            ended = []
        finally:
            for worker in workers:
                worker.signal(signal.SIGTERM)
            for worker in workers:
                worker.join()
    for worker in workers:
        if worker.process.sentinel in ended and not is_ending():
            raise worker.failure()
    for worker in workers:
        if worker.process.exitcode not in (0, -signal.SIGTERM):
            raise worker.failure()


class _Worker:
    """A process and the pipes to it.

    Attributes:
        process: once it was started.
        commands: see RemotePart.
    """

    def __init__(
        self, settings: Settings, processors: frozenset[int] | None, listening: socket
    ) -> None:
        # Of a fork, threads of OpenVINO would be missing.
        context = get_context("spawn")
        self.commands, its_commands = context.Pipe()
        self._asks, its_asks = context.Pipe()
        self._its_ends = its_commands, its_asks
        start = Start(settings, processors, listening, its_commands, its_asks)
        self.process: BaseProcess = context.Process(target=work, args=(start,), daemon=True)

    def start(self) -> None:
        self.process.start()
        for pipe in self._its_ends:
            pipe.close()

    def said(self) -> Ready | None:
        """Waits for what it says next, see Start. Raises what it could not start for."""
        try:
            said = self.commands.recv()
        except (EOFError, ConnectionResetError):
            self.join()
            raise self.failure() from None
        if isinstance(said, BitheadsError):
            raise said
        assert isinstance(said, Ready | None), "it says nothing else"
        return said

    def go_on(self, whole: Whole) -> None:
        """It serves, and its calls of `whole` are answered."""
        answering = threading.Thread(target=answer_calls, args=(self._asks, whole), daemon=True)
        answering.start()
        self.commands.send(None)

    def signal(self, number: int) -> None:
        """Nothing, if it has ended or was not started."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def join(self) -> None:
        if self.process.pid is not None:
            self.process.join()

    def failure(self) -> BackendError:
        """What is said of it when it has ended by itself."""
        return BackendError(
            f"the server ended: its process {self.process.pid} did, with the exit code "
            f"{self.process.exitcode}, see its log. Start it again."
        )


@contextmanager
def _ending_at_signals(
    workers: Sequence[_Worker], listening: socket
) -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C let them answer what is there; yields whether one came.

    Ctrl-C of a terminal comes to all of them: passed on as it is, it would be their second one,
    which ends them at once.
    """
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        again = bool(came) and number == signal.SIGINT
        came.append(number)
        listening.close()
        for worker in workers:
            worker.signal(signal.SIGINT if again else signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def share_out(settings: Settings) -> list[tuple[Settings, frozenset[int] | None]]:
    """Settings and processors of each process; None for processors where a quota is what counts.

    What bounds memory is shared, too. The queue's bound is each one's own.

    Raises InputError for more processes than cores.
    """
    count, cores = settings.workers, count_cores()
    if count > cores:
        raise InputError(
            f"--workers: got {count}, but there are {cores} cores here. Lower it to {cores}."
        )
    allowed = sorted(allowed_processors())
    shares = []
    for number in range(count):
        processors = None
        threads = cores // count
        if choose_threads() is None:
            processors = frozenset(allowed[number * cores // count : (number + 1) * cores // count])
            threads = len(processors)
        if settings.threads is not None:
            threads = min(threads, max(1, settings.threads // count))
        held = max(settings.max_body_bytes, settings.grpc_max_message_bytes)
        own = replace(
            settings,
            workers=1,
            threads=threads,
            cache_bytes=settings.cache_bytes // count,
            max_held_bytes=max(held, settings.max_held_bytes // count),
        )
        shares.append((own, processors))
    return shares
