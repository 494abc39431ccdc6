"""A process of a server that has several."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from socket import socket

from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError
from bitheads.engine.process.any_text import print_any_text
from bitheads.engine.serve import server
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.logs import set_up
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.workers.calls import RemoteWhole, answer_calls

logger = logging.getLogger("bitheads.serve")


@dataclass(frozen=True, eq=False)
class Start:
    """What a process is started with.

    Attributes:
        settings: its own, see `supervisor.share_out`.
        processors: that it may run on; None for all of its parent's.
        listening: the server's socket.
        commands: it sends that it is Ready, or why it could not start; is sent None when all are;
            sends None when it serves; and is then sent calls of its `Server.part`.
        asks: to which its calls of the whole server go.
    """

    settings: Settings
    processors: frozenset[int] | None
    listening: socket
    commands: Connection
    asks: Connection


@dataclass(frozen=True)
class Ready:
    """What a process that could start has loaded."""

    backend: str
    num_tasks: int


def work(start: Start) -> None:
    """What the process does until a signal, or until its parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while it loads, Ctrl-C is its parent's
    print_any_text()
    try:
        _work(start)
    except BitheadsError as error:
        logger.error("%s", error)
        sys.exit(1)


def _work(start: Start) -> None:
    settings = start.settings
    if start.processors is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start.processors)
    sys.setswitchinterval(server.SWITCH_S)
    log = set_up(settings.log, os.getpid())
    try:
        server.allow_connections(settings)
        engine = Engine.load(
            settings.bundle,
            settings.backend,
            settings.threads,
            settings.precision,
            min_sign_agreement=settings.min_sign_agreement,
        )
        serving = Server(engine, settings, log, RemoteWhole(start.asks))
    except BitheadsError as error:
        start.commands.send(error)
        return
    try:
        start.commands.send(Ready(engine.backend, len(engine.tasks)))
        start.commands.recv()  # all others are ready, too
        is_serving = partial(_obey, start.commands, serving)
        server.make(serving, settings, is_serving).run([start.listening])
    except EOFError:  # its parent has gone meanwhile
        return
    finally:
        serving.close()
    server.check_end(serving)


def _obey(commands: Connection, serving: Server) -> None:
    def obey() -> None:
        answer_calls(commands, serving.part)
        os.kill(os.getpid(), signal.SIGTERM)  # its parent has gone: nobody else would end it

    commands.send(None)
    threading.Thread(target=obey, daemon=True).start()
