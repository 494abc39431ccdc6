"""A port for gRPC beside that for HTTP: the same work, within the same limits."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from bitheads.engine.errors import InputError
from bitheads.engine.serve.admission import Admission
from bitheads.engine.serve.ended import NOT_ANSWERED, Ended
from bitheads.engine.serve.errors import HttpError, internal, shutting_down
from bitheads.engine.serve.kserve.grpc_service import INFER, OPEN, InferenceService
from bitheads.engine.serve.kserve.protobuf import METHODS, POOL, SERVICE
from bitheads.engine.serve.messages import server_timing
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.visit import Visit

STREAMS = 128
"""Calls of a connection at a time; clients keep back more themselves."""

IDLE_S, AGE_S = 300, 3600
"""Seconds after which a connection is closed that nobody uses, and any; clients make another."""

DETAILS_BYTES = 2000

CANCELLING_S = 0.1
"""Seconds within which a call is cancelled that was ended so by its client."""

STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""What an error's status is called here."""

logger = logging.getLogger("bitheads.serve")


class GrpcServer:
    """See the module. For the event loop's thread.

    Attributes:
        port: that it listens on, after `start`.
    """

    def __init__(
        self,
        service: InferenceService,
        settings: Settings,
        admission: Admission,
        ended: Ended,
        shares_port: bool = False,
    ) -> None:
        """shares_port: whether other processes of the same server listen on it, too."""
        self._service = service
        self._settings = settings
        self._admission = admission
        self._ended = ended
        self._shares_port = shares_port
        self.port = 0

    async def start(self) -> None:
        """Raises InputError if the port cannot be had."""
        settings = self._settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.grpc_max_message_bytes),
                ("grpc.max_allowed_incoming_connections", settings.max_connections),
                ("grpc.server_handshake_timeout_ms", round(1000 * settings.read_timeout_s)),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.max_connection_idle_ms", 1000 * IDLE_S),
                ("grpc.max_connection_age_ms", 1000 * AGE_S),
                ("grpc.so_reuseport", int(self._shares_port)),  # two servers could share one, too
                # A message that is small may be any size when it is decompressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ],
            maximum_concurrent_rpcs=settings.max_connections,
        )
        handlers = {name: self._handler(name) for name in METHODS}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers), _Others())
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        services = {"grpc.health.v1.Health": health_pb2, reflection.SERVICE_NAME: reflection_pb2}
        for described in services.values():
            POOL.AddSerializedFile(described.DESCRIPTOR.serialized_pb)
        reflection.enable_server_reflection((SERVICE, *services), self._server, POOL)
        address = address_of(settings)
        try:
            if settings.tls_cert is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _credentials(settings))
        except RuntimeError as error:
            raise _no_port(settings, error) from error
        await self._server.start()
        if not self._shares_port:
            logger.info("gRPC on %s", address_of(settings, self.port))

    async def stop(self) -> None:
        """Answers what is there, then frees all."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_s)

    def _handler(self, method: str) -> Any:
        async def handle(_: object, context: Any) -> bytes | None:
            return await self._handle(method, context)

        # With a stream the message is read here, and so within a time, and after keys and room are
        # looked at. Clients that send one message cannot tell.
        return grpc.stream_unary_rpc_method_handler(handle)

    async def _handle(self, method: str, context: Any) -> bytes | None:
        headers = {name.encode(): _bytes(value) for name, value in context.invocation_metadata()}
        visit = self._admission.visit(host_of(context.peer()), "POST", headers)
        status = NOT_ANSWERED
        failed: HttpError | None = None
        trailers = [("x-request-id", visit.id)]
        self._ended.begin()
        try:
            answer = await self._answer(method, headers, context, visit)
            status = 200
            if visit.stages:
                trailers.append(("server-timing", server_timing(visit.stages)))
            context.set_trailing_metadata(tuple(trailers))
            return answer
        except HttpError as error:
            failed = error
        except asyncio.CancelledError:
            visit.reason = "cancelled"
            raise
        except Exception:  # a defect, which must not end the server
            logger.exception("request %s failed", visit.id)
            failed = internal(visit.id)
        finally:
            visit.retract()
            if failed is not None:
                visit.fail(failed)
                status = failed.status
            self._ended.note(visit, f"/{SERVICE}/{method}", status)
        if "retry-after" in failed.headers:
            trailers.append(("retry-after", failed.headers["retry-after"]))
        code = STATUS.get(failed.status, grpc.StatusCode.UNKNOWN)
        await context.abort(code, _details(failed.message), tuple(trailers))
        return None

    async def _answer(
        self, method: str, headers: dict[bytes, bytes], context: Any, visit: Visit
    ) -> bytes:
        is_infer = method == INFER
        if method not in OPEN:
            self._admission.check_key(headers.get(b"authorization", b""))
        if is_infer:
            self._admission.check_room(visit.client)
        # As much as may come: how much does is known when it is there.
        limit = self._settings.grpc_max_message_bytes
        held = limit
        try:
            self._admission.hold(visit.client, limit, limit)
            body = await self._read(context)
            held = len(body)
            self._admission.let_go(visit.client, limit - held)
            if is_infer:
                if self._admission.is_draining:
                    raise shutting_down()
                visit.announce()
                await asyncio.sleep(0)  # others whose calls are there announce themselves, too
            answer = self._service.answer(method, body, visit)
            return await asyncio.wait_for(answer, self._settings.request_timeout_s)
        except asyncio.TimeoutError:
            raise self._admission.timed_out() from None
        finally:
            self._admission.let_go(visit.client, held)

    async def _read(self, context: Any) -> bytes:
        """Raises HttpError."""
        timeout_s = self._settings.read_timeout_s
        # Not wait_for, which may take the end of a call for the end of its messages.
        reading = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait({reading}, timeout=timeout_s)
            if not reading.done():
                message = f"The message was not there after {timeout_s} s."
                raise HttpError(408, "timeout", message, "timeout")
        finally:
            reading.cancel()
        body = reading.result()
        if body is grpc.aio.EOF:
            await asyncio.sleep(CANCELLING_S)  # a client that left: this is cancelled meanwhile
            raise HttpError(400, "bad_request", "No message came with the call.")
        assert isinstance(body, bytes)
        return body


class _Others(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """The protocol's methods that are not there: what they would be for is said."""

    def service(self, details: Any) -> Any:
        service, _, method = details.method.lstrip("/").partition("/")
        if service != SERVICE or method in METHODS:
            return None

        async def refuse(_: object, context: Any) -> None:
            message = f"{method}: this server has no such method; it has {', '.join(METHODS)}."
            if "SharedMemory" in method:
                message += " It shares no memory with its clients: send tensors in the request."
            if method == "ModelStreamInfer":
                message += f" Send each request of the stream as a {INFER}."
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _details(message))

        return grpc.stream_unary_rpc_method_handler(refuse)


def check_port(settings: Settings) -> None:
    """Raises InputError if gRPC's port cannot be had; before anything takes long."""
    assert settings.grpc_port is not None, "asked before"
    try:
        socket.create_server((settings.host, settings.grpc_port), family=settings.family).close()
    except OSError as error:
        raise _no_port(settings, error) from error


def reserve_port(settings: Settings) -> socket.socket:
    """A socket of gRPC's port that does not listen: processes of this server may do so while it is
    there, and nobody else's.

    Raises InputError if the port cannot be had.
    """
    check_port(settings)  # which another server may share with its own processes
    assert settings.grpc_port is not None, "asked before"
    reserved = socket.socket(settings.family)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            reserved.setsockopt(socket.SOL_SOCKET, option, 1)
        reserved.bind((settings.host, settings.grpc_port))
    except OSError as error:
        reserved.close()
        raise _no_port(settings, error) from error
    return reserved


def _no_port(settings: Settings, reason: Exception) -> InputError:
    return InputError(
        f"--host {settings.host} --grpc-port {settings.grpc_port}: {reason}. Choose another port, "
        "or end what listens there."
    )


def address_of(settings: Settings, port: int | None = None) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.grpc_port if port is None else port}"


def host_of(peer: str) -> str:
    """The address of `ipv4:127.0.0.1:5000` or `ipv6:[::1]:5000`, in which [ may be quoted."""
    _, _, address = peer.replace("%5B", "[").replace("%5D", "]").partition(":")
    return address.rpartition(":")[0].strip("[]")


def _credentials(settings: Settings) -> Any:
    assert settings.tls_cert is not None, "asked before"
    certificate = settings.tls_cert.read_bytes()
    key = settings.tls_key or settings.tls_cert
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), certificate)])


def _details(message: str) -> str:
    """What clients take: they refuse trailers of more than 8 KB, in which a byte may be three."""
    return message.encode()[:DETAILS_BYTES].decode(errors="ignore")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
