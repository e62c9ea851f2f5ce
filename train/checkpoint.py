"""What a run needs to go on bit for bit, in one file a checkpoint: adapter, optimizer, the gradient of a step that is
half done, the cursor, the log, and the generators' states.

A checkpoint is written aside, flushed to disk, and renamed: it is whole or not there. The newest few are kept, and the
one whose held-out loss is best.
"""

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lowrank.files import new_file

FOLDER = "checkpoints"


class Cursor(NamedTuple):
    """Where a run is: steps that are done, and batches of the next one."""

    step: int = 0
    batch: int = 0

    @property
    def filename(self) -> str:
        return f"step-{self.step:08}.pt" if not self.batch else f"step-{self.step:08}-batch-{self.batch:04}.pt"


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, run: Path, keep: int) -> None:
        self.folder = run / FOLDER
        self.keep = keep

    def cursors(self) -> list[Cursor]:
        """Of every checkpoint that is there, the oldest first."""
        names = [path.name for path in self.folder.glob("step-*.pt")] if self.folder.is_dir() else []
        found = [re.fullmatch(r"step-(\d+)(?:-batch-(\d+))?\.pt", name) for name in names]
        return sorted(Cursor(int(match[1]), int(match[2] or 0)) for match in found if match)

    def save(self, cursor: Cursor, state: dict[str, Any], best: Cursor | None = None) -> None:
        """Writes the state, and then removes what is neither among the newest nor the best.

        Raises OSError if it cannot be written; the checkpoint before it is then as whole as it was.
        """
        path = self.folder / cursor.filename
        before = self.cursors()
        try:
            with new_file(path) as aside, aside.open("wb") as file:
                torch.save({**state, "cursor": tuple(cursor), "generators": generators()}, file)
        except (OSError, RuntimeError) as error:
            whole = f"{before[-1].filename} before it is whole" if before else "there is none before it"
            raise OSError(f"{path}: cannot be written ({error}): {whole}, and --resume goes on from there") from error
        for old in self.cursors()[: -self.keep]:
            if old != best:
                (self.folder / old.filename).unlink()

    def load(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The newest state; the generators go on from where they were.

        identity: what must be as it was when the run began (config, base, data), by dotted name.
        Raises ValueError if there is none, it is damaged, or it belongs to another run.
        """
        if not (cursors := self.cursors()):
            raise ValueError(f"{self.folder}: no such checkpoint, so there is nothing to resume")
        path = self.folder / cursors[-1].filename
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            hint = f"; remove it to go on from {cursors[-2].filename}" if len(cursors) > 1 else ""
            raise ValueError(f"{path}: not a whole checkpoint: {str(error).splitlines()[0]}{hint}") from None
        for key, value in identity.items():
            if state["identity"].get(key) != value:
                raise ValueError(f"{path}: belongs to a run with {key} = {state['identity'].get(key)!r}, not {value!r}")
        restore_generators(state["generators"])
        return state

    def clear(self) -> None:
        """Removes every checkpoint: a run that is begun again must not go on from an older one."""
        for cursor in self.cursors():
            (self.folder / cursor.filename).unlink()


def generators() -> dict[str, Any]:
    """The states of torch's own generators. (Order and dropout have generators of their own, made from the seed.)"""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_generators(states: dict[str, Any]) -> None:
    """Takes back what `generators` gave, as far as this machine has the devices."""
    torch.set_rng_state(states["cpu"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
