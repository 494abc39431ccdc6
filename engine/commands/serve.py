"""`bitheads serve`: a bundle over HTTP."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.engine import Engine
from bitheads.engine.errors import BackendError
from bitheads.engine.process.install import how_to_install
from bitheads.engine.serve import settings as options

GRPC_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")
OTEL_PACKAGES = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter")
"""In the order of who has whom: what has no parent is asked with an error."""

logger = logging.getLogger("bitheads.serve")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return exit_code(lambda: _run(argv))


def _run(argv: list[str] | None) -> None:
    settings = options.read(argv)
    missing = [
        name
        for name in ("fastapi", "fastapi_offline", "uvicorn", "httptools", "prometheus_client")
        if find_spec(name) is None
    ]
    if missing:
        raise BackendError(
            f"the server needs {', '.join(missing)}. Type: {how_to_install('serve')}"
        )
    if settings.grpc_port is not None and any(find_spec(name) is None for name in GRPC_PACKAGES):
        raise BackendError(f"--grpc-port needs gRPC. Type: {how_to_install('grpc')}")
    if settings.traces == "otlp" and any(find_spec(name) is None for name in OTEL_PACKAGES):
        raise BackendError(f"--traces needs OpenTelemetry. Type: {how_to_install('otel')}")
    from bitheads.engine.serve import server
    from bitheads.engine.serve.app import Server
    from bitheads.engine.serve.logs import set_up

    sys.setswitchinterval(server.SWITCH_S)
    server.check_certificate(settings)
    if settings.workers > 1:
        from bitheads.engine.serve.workers.supervisor import serve

        serve(settings)
        return
    server.allow_connections(settings)
    if settings.grpc_port is not None:
        from bitheads.engine.serve.grpc_server import check_port

        check_port(settings)
    with server.listen(settings) as listening:
        log = set_up(settings.log)
        engine = Engine.load(
            settings.bundle,
            settings.backend,
            settings.threads,
            settings.precision,
            min_sign_agreement=settings.min_sign_agreement,
        )
        serving = Server(engine, settings, log)
        try:
            shown = f"{settings.bundle} on {engine.backend}, {len(engine.tasks)} tasks"
            logger.info("%s: %s", server.url(listening, settings), shown)
            server.make(serving, settings).run([listening])
        finally:
            serving.close()
        server.check_end(serving)


if __name__ == "__main__":
    sys.exit(main())
