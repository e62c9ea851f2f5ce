"""What a run needs to go on bit for bit: adapter, optimizer, cursor, and the generators' states, in one file."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lowrank.files import new_file

FILENAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state aside, flushes it, and renames it over the last one: there is always one whole checkpoint."""
    with new_file(folder / FILENAME) as aside:
        torch.save({**state, "torch_rng": torch.get_rng_state()}, aside)


def load_checkpoint(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The state that was saved last; the generators go on from where they were.

    identity: what must be as it was when the run began (config, base, data), by dotted name.
    Raises ValueError if there is none, it is damaged, or it belongs to another run.
    """
    path = folder / FILENAME
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint, so there is nothing to resume")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a whole checkpoint: {str(error).splitlines()[0]}") from None
    for key, value in identity.items():
        if state["identity"].get(key) != value:
            raise ValueError(f"{path}: belongs to a run with {key} = {state['identity'].get(key)!r}, not {value!r}")
    torch.set_rng_state(state["torch_rng"])
    return state
