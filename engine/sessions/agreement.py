"""A budget in place of a precision: which ways to compute an encoder are exact enough for `auto`.

What is compared is what the bundle's build measured: the share of signs that each of its sessions
had as torch in fp32 has them, on the texts of the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitheads.engine.bundle import Manifest
from bitheads.engine.errors import BackendError
from bitheads.engine.sessions import BACKENDS, supports_bf16
from bitheads.engine.sessions.tuning import Way

FLOATING_POINT = 0.997
"""Share of signs that every build holds bf16 to, and fp32 to more; not every machine has bf16."""


def check_min_sign_agreement(asked: float | None, precision: str) -> None:
    """Raises BackendError for what is no share, or has nothing to choose among."""
    if asked is None:
        return
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 < asked <= 1:
        raise BackendError(
            f"min_sign_agreement: got {asked!r}, expected a share of signs over 0 and up to 1, "
            f"such as 0.99, or None: floating point, which keeps {FLOATING_POINT}."
        )
    if precision != "auto":
        raise BackendError(
            f"min_sign_agreement: got {asked} with precision {precision!r}, expected one of them: "
            "it chooses among precisions. Leave either out."
        )


def within(ways: Sequence[Way], manifest: Manifest, asked: float) -> list[Way]:
    """The ways that `auto` may take of this bundle, best guess first.

    Args:
        ways: in floating point, see engine.sessions.tuning.ways.
        asked: the least share of signs, checked already.

    Raises BackendError if the bundle's build measured nothing, or if nothing that this machine has
    is within `asked`.
    """
    measured = _measured(manifest)
    if not measured:
        raise BackendError(
            f"min_sign_agreement: got {asked}, but the bundle of {manifest.spec.encoder} says of "
            "none of its sessions how many signs agree. Build it again, which measures it, or "
            "name a precision."
        )
    unmeasured = FLOATING_POINT if asked <= FLOATING_POINT else 0.0
    backends = dict.fromkeys(backend for backend, _ in ways)
    quantized = [
        (backend, precision)
        for backend in backends
        for precision in manifest.quantized
        if precision in BACKENDS[backend].precisions
    ]
    found = [way for way in _named(backends) if measured.get(way, unmeasured) >= asked]
    found += [way for way in quantized if measured.get(way, 0.0) >= asked]
    if not found:
        shares = ", ".join(f"{share:.5f} {' '.join(way)}" for way, share in measured.items())
        raise BackendError(
            f"min_sign_agreement: got {asked}, but nothing that this machine has agrees so well. "
            f"When the bundle was built, the shares were: {shares}. Ask for less, or name a "
            "precision."
        )
    return found


def _named(backends: Iterable[str]) -> list[Way]:
    """The floating-point types that "auto" may stand for, each by its name."""
    return [
        (backend, precision)
        for backend in backends
        for precision in ("bf16", "fp32")
        if precision == "fp32" or supports_bf16(backend)
    ]


def _measured(manifest: Manifest) -> dict[Way, float]:
    """Every session of the build that this version knows -> share of signs."""
    ways = [(backend, p) for backend, row in BACKENDS.items() for p in row.precisions]
    shares = {way: manifest.sign_agreement(*way) for way in ways}
    return {way: share for way, share in shares.items() if share is not None}
