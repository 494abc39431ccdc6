"""Options from flags and from the environment."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bitheads.engine.errors import InputError
from bitheads.engine.serve.settings import Settings, flag, read, variable

KEYS = "0123456789abcdef", "fedcba9876543210"


def test_defaults() -> None:
    assert read([], {}) == Settings()


def test_flags_win_over_the_environment() -> None:
    environment = {"BITHEADS_SERVE_PORT": "9000", "BITHEADS_SERVE_HOST": "0.0.0.0", "PORT": "1"}
    found = read(["--port", "9001"], environment)
    assert (found.port, found.host) == (9001, "0.0.0.0")


def test_every_option_is_a_flag_and_a_variable(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"int": "7", "float": "0.5", "Path": "/some/where", "tuple": ",".join(KEYS)}
    special = {"log": "text", "host": "::1", "backend": "openvino", "precision": "fp32"}
    special |= {
        "traces": "otlp",
        "cors_origins": "https://a.example,http://localhost:3000",
        "root_path": "/some/where",
    }
    others = {"tls_key": ["--tls-cert", "cert.pem"]}
    with pytest.raises(SystemExit):
        read(["--help"], {})
    shown = capsys.readouterr().out
    for option in fields(Settings):
        kind = next((k for k in values if str(option.type).startswith(k)), "str")
        text = special.get(option.name) or values[kind]
        other = others.get(option.name, [])
        by_flag = read([flag(option.name), text, *other], {})
        assert getattr(by_flag, option.name) != option.default
        assert by_flag == read(other, {variable(option.name): text})
        assert flag(option.name) in shown


def test_keys_and_paths() -> None:
    found = read(["--api-keys", f"{KEYS[0]}, {KEYS[1]}", "--heads", "kept"], {})
    assert found.api_keys == KEYS
    assert found.heads == Path("kept")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--allowed-hosts", "a.example,b.example:8000"], {}, "b.example:8000.*a name alone"),
        (["--allowed-hosts", "https://a.example"], {}, "a name alone"),
        (
            ["--cors-origins", "app.example.org"],
            {},
            r"--cors-origins: got 'app.example.org', expected",
        ),
        (["--cors-origins", "https://a.example/"], {}, r"--cors-origins: got 'https://a.example/'"),
        (["--cors-origins", "https://a.example:x"], {}, r"--cors-origins: got"),
        (["--root-path", "bitheads"], {}, r"--root-path: got 'bitheads', expected a path such as"),
        (["--root-path", "/bitheads/"], {}, r"--root-path: got '/bitheads/'"),
        (["--tls-key", "key.pem"], {}, r"--tls-key: got a key without --tls-cert"),
        (["--gzip-min-bytes", "-1"], {}, r"--gzip-min-bytes: got -1, expected 0 or more"),
        (["--port", "x"], {}, r"--port or BITHEADS_SERVE_PORT: got 'x', expected a number"),
        ([], {"BITHEADS_SERVE_PORT": "70000"}, r"--port: got 70000, expected 0 to 65535"),
        (["--grpc-port", "70000"], {}, r"--grpc-port: got 70000, expected 0 to 65535"),
        (["--grpc-max-message-bytes", "0"], {}, r"--grpc-max-message-bytes: got 0"),
        (
            ["--grpc-port", "0", "--grpc-max-message-bytes", "9", "--max-held-bytes", "8"],
            {},
            r"--grpc-max-message-bytes: got 9, expected at most --max-held-bytes, 8",
        ),
        (["--max-texts", "0"], {}, r"--max-texts: got 0, expected more than 0"),
        (["--drain-s", "-1"], {}, r"--drain-s: got -1.0, expected more than 0"),
        (["--max-wait-ms", "-1"], {}, r"--max-wait-ms: got -1.0"),
        (["--threads", "0"], {}, r"--threads: got 0"),
        (["--traces", "jaeger"], {}, r"--traces: got 'jaeger', expected one of"),
        (["--log", "xml"], {}, r"--log: got 'xml', expected one of \['json', 'text', 'none'\]"),
        (["--api-keys", "short"], {}, r"one of 5 characters, expected at least 16"),
        ([], {"BITHEADS_SERVE_PROT": "1"}, r"BITHEADS_SERVE_PROT: no such option"),
    ],
)
def test_what_cannot_be(arguments: list[str], environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(arguments, environment)


def test_no_wait_is_a_wait() -> None:
    assert read(["--max-wait-ms", "0"], {}).max_wait_ms == 0
