"""Where training computes."""

from __future__ import annotations

import torch

from bitheads.training.errors import TrainingError


def choose_device(name: str) -> torch.device:
    """The device of that name: `cpu`, `cuda`, `cuda:1`, ...; `auto` is a GPU where there is one.

    Raises TrainingError for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
        raise TrainingError(
            f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]}). Take cpu."
        ) from error
    return device
