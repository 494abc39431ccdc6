"""What a program does outside itself: connections, child processes, files it writes.

Python's audit events say it of Python code, in every child, too; strace of all, where it is there.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

HOOK = """
import json, os, sys
_log = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
def _write(event, *said):
    os.write(_log, (json.dumps([event, *map(str, said)]) + "\\n").encode())
def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if event == "socket.connect" and arguments[0].type & 15 == 2:
            return  # of datagrams, which sends nothing
        _write("connection", address[0] if isinstance(address, tuple) else "")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
        _write("connection", host.decode() if isinstance(host, bytes) else host or "")
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
        _write("child", arguments[0])
_write("start", os.getpid())
sys.addaudithook(_hook)
"""

STRACE = shutil.which("strace")
CALLS = "connect,sendto,sendmsg,sendmmsg,execve,"
CALLS += "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2"

NO_FILE = re.compile(r"/dev/(null|tty|pts/.*|shm/(sem\.|__KMP|plasma).*)|/proc/.*|/sys/.*")
"""What is written to and is no file; semaphores are named memory."""


class Watch:
    """Programs that run with a home, a cache and a temporary folder of their own.

    Attributes:
        home, cache, scratch: those folders.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.home, self.cache, self.scratch = (folder / n for n in ("home", "cache", "scratch"))
        self._hooks, self._log, self._trace = folder / "hooks", folder / "log", folder / "trace"
        for made in (self.home, self.cache, self.scratch, self._hooks):
            made.mkdir()
        (self._hooks / "sitecustomize.py").write_text(HOOK)
        self._environment = {
            **{name: value for name, value in os.environ.items() if _is_kept(name)},
            "HOME": str(self.home),
            "BITHEADS_CACHE": str(self.cache),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": str(self._hooks),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WATCHED_LOG": str(self._log),
            **environment,
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Python with these arguments; its standard error goes with its output."""
        command = [sys.executable, *map(str, arguments)]
        if STRACE is not None:
            options = ["-f", "-yy", "--seccomp-bpf", "-s", "4096", "-e", f"trace={CALLS}"]
            command = [STRACE, *options, "-o", str(self._trace), *command]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: object, code: int = 0) -> str:
        """What it printed."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        assert process.returncode == code, printed[-3000:]
        return printed

    @property
    def pid(self) -> int:
        """Of the program that was started first."""
        return int(self._events("start")[0])

    def connections(self) -> set[str]:
        """Addresses and names of others: not this machine's, and none of its own sockets."""
        found = set(self._events("connection"))
        for call in self._calls("connect", "send"):
            if re.match(r"connect\(\d+<UDP", call):  # sends nothing
                continue
            found.update(re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', call))
            found.update(
                re.findall(r"^send\w+\(\d+<(?:UDP|TCP)[^>]*->\[?([^\]>]*?)\]?:\d+\]>", call)
            )
        return {host for host in found if not _is_here(host)}

    def children(self) -> set[str]:
        """Names of programs that were started, the first one left out."""
        found = [Path(path).name for path in self._events("child")]
        execs = [call for call in self._calls("execve") if not call.endswith("ENOENT")]
        found += [Path(_paths(call)[0]).name for call in execs[1:]]
        return set(found)

    def written(self, *allowed: Path) -> set[str]:
        """Files and folders that were made or opened for writing, outside those that are allowed.

        Nothing without strace.
        """
        found: set[str] = set()
        for call in self._calls(
            "open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat"
        ):
            opens = call.startswith("open")
            if "ENOENT" in call or "EEXIST" in call:
                continue
            if opens and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", call):
                continue
            found.update(_paths(call))
        roots = [*allowed, self.cache, self.scratch, self._log]
        return {
            path
            for path in found
            if not NO_FILE.fullmatch(path)
            and not any((ROOT / path).is_relative_to(root) for root in roots)
        }

    def _events(self, kind: str) -> list[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        events: list[list[Any]] = [json.loads(line) for line in lines]
        return [event[1] for event in events if event[0] == kind]

    def _calls(self, *names: str) -> list[str]:
        if STRACE is None:
            return []
        lines = self._trace.read_text(errors="replace").splitlines()
        calls = [line.partition(" ")[2].strip() for line in lines]
        return [re.sub(r" \([^()]*\)$", "", c) for c in calls if c.startswith(names)]


def _is_kept(name: str) -> bool:
    """Not what tests set or unset, which a program would not find."""
    return not name.startswith(("HF_", "XDG_", "RAY_", "BITHEADS_", "PYTHON", "DO_NOT_TRACK"))


def _paths(call: str) -> list[str]:
    return re.findall(r'"([^"]*)"', call.partition("[")[0])


def _is_here(host: str) -> bool:
    """An address that a socket can be bound to is this machine's."""
    host = host.removeprefix("::ffff:")
    if host in ("", "localhost", socket.gethostname()):
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((str(ipaddress.ip_address(host)), 0))
    except (ValueError, OSError):
        return False
    return True
