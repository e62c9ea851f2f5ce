"""Checkpoints from which a run resumes bit for bit: adapter, optimizer, the gradient of a step that is half done, the
cursor, the log, and the generators' states.

A checkpoint is one file; or a folder to which each of several processes writes its own part: of a model that is cut
over them (torch.distributed.checkpoint), or, inside a step, of the gradient that is not summed yet. Any number of
processes can read either. It is written aside, flushed to disk, and renamed: it is whole or not there. The newest few
are kept, and the one whose held-out loss is best.
"""

import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowrank.atomic_io import UNFINISHED, held, new_file, publish_folder, remove_unfinished

from .parallel.single import SingleProcess

FOLDER, STATE, OWN = "checkpoints", "state.pt", "gradient-"


class Cursor(NamedTuple):
    """Where a run is: steps that are done, and batches of the next one."""

    step: int = 0
    batch: int = 0

    @property
    def name(self) -> str:
        return f"step-{self.step:08}" + (f"-batch-{self.batch:04}" if self.batch else "")


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, run: Path, keep: int, team: SingleProcess | None = None) -> None:
        self.folder = run / FOLDER
        self.keep = keep
        self.team = team or SingleProcess()

    def cursors(self) -> list[Cursor]:
        """The cursors of all stored checkpoints, oldest first."""
        names = [path.name for path in self.folder.glob("step-*")] if self.folder.is_dir() else []
        found = [re.fullmatch(r"step-(\d+)(?:-batch-(\d+))?\.(?:pt|parts)", name) for name in names]
        return sorted({Cursor(int(match[1]), int(match[2] or 0)) for match in found if match})

    def path(self, cursor: Cursor) -> Path:
        """The path of a checkpoint: a folder if several processes wrote it, else a file."""
        parts = self.folder / f"{cursor.name}.parts"
        return parts if parts.is_dir() else self.folder / f"{cursor.name}.pt"

    def save(
        self,
        cursor: Cursor,
        state: dict[str, Any],
        tensors: dict[str, Tensor],
        gradients: dict[str, Tensor],
        best: Cursor | None = None,
    ) -> None:
        """Writes state and tensors, and then removes what is neither among the newest nor the best.

        gradients: of a step that is half done, each process's own unless the model is cut.
        Raises OSError if it cannot be written; the checkpoint before it is then as whole as it was.
        """
        before = self.cursors()
        state = {**state, "cursor": tuple(cursor), "generators": generators()}
        has_own_gradients = self.team.size > 1 and not self.team.shards and bool(gradients)
        path = self.folder / f"{cursor.name}.{'parts' if self.team.shards or has_own_gradients else 'pt'}"
        try:
            if self.team.shards:
                self._save_parts(path, state, lambda aside: _save_cut({**tensors, **gradients}, aside))
            elif has_own_gradients:
                name = f"{OWN}{self.team.rank:05}.pt"
                self._save_parts(path, {**state, "tensors": tensors}, lambda aside: torch.save(gradients, aside / name))
            elif self.team.is_first:
                with new_file(path) as aside, aside.open("wb") as file:
                    torch.save({**state, "tensors": {**tensors, **gradients}}, file)
        except (OSError, RuntimeError) as error:
            newest = f"{self.path(before[-1]).name} before it is whole" if before else "there is none before it"
            raise OSError(
                f"{path}: cannot be written ({error}): {newest}, and a resumed run goes on from there"
            ) from error
        if self.team.is_first:
            for old in self.cursors()[: -self.keep]:
                if old != best:
                    self._remove(old)
        self.team.wait()

    def load(self, pass_over_damaged: bool = False) -> tuple[dict[str, Any], Path]:
        """The newest state, and where its tensors are (`fill`); the generators go on from where they were.

        pass_over_damaged: takes the newest that is whole, and renames those above it to damaged-...
        Raises ValueError if there is none, or it is damaged.
        """
        remove_unfinished(self.folder, "step-")
        if not (cursors := self.cursors()):
            raise ValueError(f"{self.folder}: no such checkpoint, so there is nothing to resume")
        damaged: list[Path] = []
        for number, cursor in reversed(list(enumerate(cursors))):
            path = self.path(cursor)
            try:
                state = read_state(path)
                break
            except ValueError as error:
                if number == 0 or not pass_over_damaged:
                    hint = f"; remove it to go on from {self.path(cursors[number - 1]).name}" if number else ""
                    raise ValueError(f"{error}{hint}") from None
                warnings.warn(f"{error}: goes on from the one before it", stacklevel=2)
                damaged.append(path)
        self.team.wait()  # all have seen them
        for one in damaged if self.team.is_first else ():
            one.rename(one.with_name(f"damaged-{one.name}"))
        restore_generators(state["generators"])
        return state, path

    @torch.no_grad()
    def fill(self, state: dict[str, Any], path: Path, tensors: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        """Puts what was saved into the tensors, in this process's cut of them, whatever the cut was that saved it.

        Gradients of processes that are fewer or more are shared out, so that the sum over all is what it was.
        """
        if "tensors" not in state:
            from torch.distributed.checkpoint.state_dict_loader import load

            load({**tensors, **gradients}, checkpoint_id=path, no_dist=self.team.size == 1)
            if not (self.team.is_first or self.team.shards):
                for gradient in gradients.values():
                    gradient.zero_()
            return
        for name, tensor in tensors.items():
            self._put(state["tensors"][name], tensor)
        files = sorted(path.glob(f"{OWN}*")) if path.is_dir() else [None]
        for number, file in enumerate(files if self.team.shards else self.team.share(files)):
            part = state["tensors"] if file is None else torch.load(file, weights_only=True)
            for name, gradient in gradients.items():
                self._put(part[name], gradient, add=number > 0)

    def _put(self, full: Tensor, tensor: Tensor, add: bool = False) -> None:
        mine = self.team.shard_like(full.to(tensor.device), tensor)
        tensor.add_(mine) if add else tensor.copy_(mine)

    def clear(self) -> None:
        """Removes every checkpoint: a run that is begun again must not go on from an older one."""
        remove_unfinished(self.folder, "step-")
        for cursor in self.cursors():
            self._remove(cursor)

    def _save_parts(self, path: Path, state: dict[str, Any], save_part: Callable[[Path], None]) -> None:
        """Every process its own part, into a folder aside, which the first one then names."""
        aside = path.with_name(f".{path.name}{UNFINISHED}")
        with ExitStack() as stack:
            if self.team.is_first:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                stack.enter_context(held(aside))
                torch.save(state, aside / STATE)
            self.team.wait()
            save_part(aside)
            self.team.wait()
            if self.team.is_first:
                publish_folder(aside, path)

    def _remove(self, cursor: Cursor) -> None:
        path = self.path(cursor)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_state(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, a file or a folder of parts.  Raises ValueError for one that is not whole."""
    file = path / STATE if path.is_dir() else path
    try:
        state = torch.load(file, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError) as error:
        empty = file.is_file() and file.stat().st_size == 0
        reason = "is empty" if empty else (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a whole checkpoint: {reason}") from None
    if not isinstance(state, dict) or not {"identity", "cursor", "generators"} <= state.keys():
        raise ValueError(f"{path}: not a checkpoint of a run")
    return state


def _save_cut(tensors: dict[str, Tensor], folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    save(tensors, checkpoint_id=folder)


def generators() -> dict[str, Any]:
    """The states of torch's own generators. (Order and dropout have generators of their own, made from the seed.)"""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_generators(states: dict[str, Any]) -> None:
    """Takes back what `generators` gave, as far as this machine has the devices."""
    torch.set_rng_state(states["cpu"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
