"""The server's options: each is a flag and an environment variable, and says when to change it."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.serve.origins import EVERY_ORIGIN, is_origin
from bitheads.engine.sessions import BACKENDS, DEVICE_BACKENDS

PREFIX = "BITHEADS_SERVE_"
KEY_LENGTH = 16
"""Characters of an API key, at least: shorter ones are guessed."""


def _option(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Settings:
    """See the help texts. Times are in seconds, sizes in bytes."""

    bundle: Path = _option(
        Path("bundles/all-MiniLM-L6-v2"), "made by `bitheads build`", metavar="DIR"
    )
    host: str = _option(
        "127.0.0.1", "address to listen on; 0.0.0.0 to be reached from other machines"
    )
    port: int = _option(8000, "0 takes any free one and prints it")
    grpc_port: int | None = _option(
        None,
        "also answer the Open Inference Protocol over gRPC, on this port, such as 8001; 0 takes "
        "any free one and prints it (default: no gRPC)",
    )
    backend: str = _option(
        "auto", f"{', '.join((*BACKENDS, *DEVICE_BACKENDS))}; auto takes the fastest that works"
    )
    precision: str = _option(
        "auto",
        "on a CPU auto, fp32, bf16, or int8_dynamic or int8 for bundles that were built with it; "
        "on a GPU auto, the graph's own, fp16 or fp32, or with tensorrt fp8 or int8 for bundles "
        "built with that",
    )
    min_sign_agreement: float | None = _option(
        None,
        "on a CPU, what the precision auto may take: the fastest with at least this share of signs "
        "as torch's in fp32 when the bundle was built, int8 included, such as 0.99 (default: the "
        "fastest floating-point type, which keeps 0.997)",
        metavar="SHARE",
    )
    threads: int | None = _option(
        None, "processor threads of the encoder; lower it to leave cores to others (default: all)"
    )
    workers: int = _option(
        1,
        "processes that answer, each with an engine on its share of the cores: more than one where "
        "one process cannot keep all cores busy, see docs/serving.md",
    )
    heads: Path | None = _option(
        None,
        "where uploaded heads are kept, and read from at the next start; without it they are "
        "forgotten when the server ends",
        metavar="DIR",
    )
    api_keys: tuple[str, ...] = _option(
        (),
        "keys of which a client must send one as `Authorization: Bearer KEY`; several are "
        "separated by commas (default: none is needed); as a flag other users of the machine can "
        "see it",
        metavar="KEYS",
    )
    admin_keys: tuple[str, ...] = _option(
        (),
        "keys that may upload and remove heads, separated by commas (default: nobody may)",
        metavar="KEYS",
    )
    allowed_hosts: tuple[str, ...] = _option(
        (),
        "names by which clients may address a server that listens on this machine alone, separated "
        "by commas; needed behind a proxy that passes on the name it was asked for (default: "
        "localhost, addresses and names without a dot)",
        metavar="NAMES",
    )
    cors_origins: tuple[str, ...] = _option(
        (),
        "origins whose pages may ask from a browser, such as https://app.example.org, separated by "
        "commas; * for all (default: none but the server's own page)",
        metavar="ORIGINS",
    )
    root_path: str = _option(
        "", "path that a proxy puts before the server's own, such as /bitheads", metavar="PATH"
    )
    tls_cert: Path | None = _option(
        None, "certificates in PEM, the server's first: it then speaks HTTPS", metavar="FILE"
    )
    tls_key: Path | None = _option(
        None, "its private key in PEM, if that is not in the same file", metavar="FILE"
    )
    max_batch_tokens: int | None = _option(
        None, "bound on an encoder call's tokens; lower it to save memory (default: the encoder's)"
    )
    max_wait_ms: float = _option(
        2.0,
        "milliseconds that a batch waits, at most, for requests that are being read already; 0 "
        "never waits",
    )
    max_queue_tokens: int = _option(
        65_536,
        "tokens that wait at most; past that requests are refused with 429. Raise it to ride out "
        "longer bursts, lower it to answer or refuse sooner",
    )
    cache_bytes: int = _option(
        256 << 20,
        "bytes of codes that are kept of texts, so that a text that comes again is not encoded "
        "again; 0 for none. Clients can tell by the time whether a text came before",
    )
    max_connections: int = _option(
        2048, "connections at a time, at each port; past that they are closed, over HTTP with 503"
    )
    max_body_bytes: int = _option(8 << 20, "bytes of a request; larger ones are refused with 413")
    max_head_bytes: int = _option(256 << 20, "bytes of an uploaded head")
    grpc_max_message_bytes: int = _option(
        1 << 20,
        "bytes of a gRPC message; of every call that is being read so many count as held",
    )
    max_held_bytes: int = _option(
        512 << 20, "bytes of all bodies at a time; past that requests are refused with 429"
    )
    max_texts: int = _option(1000, "texts of a request")
    max_chars: int = _option(
        1 << 18, "characters of a text; what the encoder does not read is cut anyway"
    )
    gzip_min_bytes: int = _option(
        0,
        "bytes from which on answers are compressed, for clients that accept gzip; of use where "
        "the network is slow, such as 1024; 0 never",
    )
    read_timeout_s: float = _option(
        10.0, "seconds for a request's headers, and for its body; slower clients are cut off"
    )
    request_timeout_s: float = _option(
        30.0,
        "seconds from the whole request to its answer; past that it is refused with 503, and with "
        "429 at once while the queue would take more than half of it",
    )
    drain_s: float = _option(
        30.0, "seconds that requests have to end after SIGTERM; at least request_timeout_s is best"
    )
    traces: str = _option(
        "none",
        "otlp: a span per request goes to the collector that OpenTelemetry's variables name, such "
        "as OTEL_EXPORTER_OTLP_ENDPOINT; none",
        kind="choice",
    )
    log: str = _option("json", "json: one line per request; text: for people; none", kind="choice")

    def __post_init__(self) -> None:
        positive = [f.name for f in fields(self) if "max_" in f.name or "_s" in f.name]
        for name in (*positive, "threads", "workers"):
            value = getattr(self, name)
            if isinstance(value, int | float) and (
                value < 0 or (value == 0 and "wait" not in name)
            ):
                raise InputError(f"{flag(name)}: got {value}, expected more than 0.")
        for name in ("port", "grpc_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise InputError(f"{flag(name)}: got {getattr(self, name)}, expected 0 to 65535.")
        if self.grpc_port is not None and self.grpc_max_message_bytes > self.max_held_bytes:
            raise InputError(
                f"--grpc-max-message-bytes: got {self.grpc_max_message_bytes}, expected at most "
                f"--max-held-bytes, {self.max_held_bytes}: no call would find room."
            )
        if self.log not in LOGS:
            raise InputError(f"--log: got {self.log!r}, expected one of {list(LOGS)}.")
        if self.traces not in TRACES:
            raise InputError(f"--traces: got {self.traces!r}, expected one of {list(TRACES)}.")
        for name in self.allowed_hosts:
            if ":" in name or "/" in name:
                raise InputError(
                    f"--allowed-hosts: got {name!r}, expected a name alone, such as "
                    "models.example.org: ports do not matter, and addresses are always answered."
                )
        for name in ("gzip_min_bytes", "cache_bytes"):
            if (value := getattr(self, name)) < 0:
                raise InputError(f"{flag(name)}: got {value}, expected 0 or more.")
        for origin in self.cors_origins:
            if origin != EVERY_ORIGIN and not (is_origin(origin) and origin == origin.lower()):
                raise InputError(
                    f"--cors-origins: got {origin!r}, expected a scheme and a name in small "
                    "letters, such as https://app.example.org or http://localhost:3000, or *."
                )
        if self.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.root_path):
            raise InputError(
                f"--root-path: got {self.root_path!r}, expected a path such as /bitheads, without "
                "a slash at its end."
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise InputError("--tls-key: got a key without --tls-cert, expected both.")
        for key in (*self.api_keys, *self.admin_keys):
            if len(key) < KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise InputError(
                    f"API keys: got one of {len(key)} characters, expected at least {KEY_LENGTH} "
                    "printable ASCII characters without blanks. Type: openssl rand -hex 16"
                )

    @property
    def family(self) -> socket.AddressFamily:
        """Of the sockets of `host`."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


LOGS = ("json", "text", "none")
TRACES = ("otlp", "none")


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    return PREFIX + name.upper()


def read(argv: Sequence[str] | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads a command line, and for what it leaves out the environment.

    Raises InputError for values that cannot be.
    """
    environment = os.environ if environment is None else environment
    known = {variable(f.name) for f in fields(Settings)}
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            raise InputError(f"{name}: no such option. See bitheads serve --help")
    given = vars(_parser().parse_args(argv))
    values = {}
    for option in fields(Settings):
        text = given[option.name]
        if text is None and environment.get(variable(option.name), "") != "":
            text = environment[variable(option.name)]
        if text is not None:
            values[option.name] = _convert(option.name, str(option.type), text)
    return Settings(**values)


def _convert(name: str, kind: str, text: str) -> Any:
    try:
        if kind.startswith("int"):
            return int(text)
        if kind.startswith("float"):
            return float(text)
    except ValueError:
        raise InputError(
            f"{flag(name)} or {variable(name)}: got {text!r}, expected a number."
        ) from None
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return Path(text) if kind.startswith("Path") else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads serve",
        description="Serves a bundle over HTTP: one encoder pass a text, every task's answer.",
        epilog=f"Each option is also an environment variable: {PREFIX} and its name in capitals, "
        f"such as {variable('max_batch_tokens')}. Flags win.",
    )
    for option in fields(Settings):
        shown = option.metadata["help"]
        if option.default not in (None, ()):
            shown += f" (default: {option.default})"
        metavar = option.metadata.get("metavar", "N" if str(option.type)[0] in "if" else None)
        parser.add_argument(flag(option.name), help=shown, metavar=metavar or option.name.upper())
    return parser
