"""A Hugging Face hub on this machine: the answers that huggingface_hub needs to fetch models."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class LocalHub:
    """Models by id, each with revisions, which are folders.

    Attributes:
        gated: ids of models that nobody here may read.
        stated_sizes: file name -> bytes that the hub says it has, where it is not so.
        fetched: paths of the files that were asked for, ID/COMMIT/PATH.
        asked: path and User-Agent of every request.
    """

    url: str = ""
    gated: set[str] = field(default_factory=set)
    stated_sizes: dict[str, int] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    _commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    _refs: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, model: str, folder: Path, revision: str = "main") -> str:
        """Makes a folder a model's revision; returns its commit."""
        commit = hashlib.sha1(f"{model} {revision} {folder}".encode()).hexdigest()
        self._commits.setdefault(model, {})[commit] = folder
        self._refs.setdefault(model, {})[revision] = commit
        return commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        parts = path.strip("/").split("/")
        if parts[0] == "api":  # api/models/ORG/NAME/...
            parts = parts[2:]
        model, rest_of = "/".join(parts[:2]), parts[2:]
        if model not in self._commits:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        what, revision = rest_of[0] if rest_of else "revision", unquote("/".join(rest_of[1:2]))
        revision = revision or "main"
        commit = self._refs[model].get(revision, revision)
        if commit not in self._commits[model]:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        folder = self._commits[model][commit]
        if what == "revision":
            files = [
                {"rfilename": name, "size": size} for name, size in self._files(folder).items()
            ]
            return self._json({"id": model, "sha": commit, "siblings": files})
        if what == "tree":
            entries = [
                {"type": "file", "path": name, "size": size, "oid": _oid(folder / name)}
                for name, size in self._files(folder).items()
            ]
            return self._json(entries)
        return self._file(model, commit, folder, "/".join(rest_of[2:]))

    def _file(
        self, model: str, commit: str, folder: Path, name: str
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {"X-Repo-Commit": commit}
        if model in self.gated:
            return 403, {**headers, "X-Error-Code": "GatedRepo"}, b""
        if not (folder / name).is_file():
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        self.fetched.append(f"{model}/{commit}/{name}")
        return 200, {**headers, "ETag": f'"{_oid(folder / name)}"'}, (folder / name).read_bytes()

    def _files(self, folder: Path) -> dict[str, int]:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        return {name: self.stated_sizes.get(name, size) for name, size in sizes.items()}

    @staticmethod
    def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """A hub that answers at its `url` until the end."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:  # of what is reported
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(with_body=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            hub.asked.append((self.path, self.headers["User-Agent"]))
            status, headers, body = hub.answer(urlsplit(self.path).path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
