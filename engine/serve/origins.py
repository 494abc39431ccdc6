"""Who may ask a server that listens for its own machine: not any web page that a browser shows.

A page of another site can have a browser send requests to this machine (a form, or fetch with a
body of plain text), and, where its name is made to lead here, read the answers. Such requests name
that site: in Host, in Origin, or in both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

EVERY_ORIGIN = "*"


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def foreign_name(
    headers: Mapping[bytes, bytes], allowed: Sequence[str], origins: Sequence[str] = ()
) -> str | None:
    """The header that names another site, as it came; None if there is none.

    Args:
        headers: by name in small letters.
        allowed: names by which this server is known, too, in small letters.
        origins: whose pages may ask nevertheless, see `Settings.cors_origins`.
    """
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = _name_of(f"//{host}")
    if name is None or not (_is_no_domain(name) or name in allowed):
        return f"Host: {host}"
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if origin and not (origin in origins or EVERY_ORIGIN in origins):
        its = _name_of(origin)
        same = urlsplit(origin).netloc == host if its is not None else False
        if its is None or not (same or is_loopback(its) or its in allowed):
            return f"Origin: {origin}"
    return None


def is_origin(text: str) -> bool:
    """Whether it is what a browser sends as Origin: a scheme, a name, perhaps a port."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for what is none
    except ValueError:
        return False
    return text == f"{parts.scheme}://{parts.netloc}" and bool(parts.scheme and parts.hostname)


def _name_of(url: str) -> str | None:
    """The name or address in it; empty where there is none, None if it cannot be read."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is none
    except ValueError:
        return None
    return None if url == "null" else (parts.hostname or "")


def _is_no_domain(name: str) -> bool:
    """Whether nobody elsewhere can have it lead here: an address, or a name without a dot."""
    if "." not in name or is_loopback(name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
