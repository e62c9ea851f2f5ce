"""The tables of a run's config, with the default of every key."""

from dataclasses import dataclass, field
from typing import Literal

from lowrank.adapters.starts import DEFAULT as DEFAULT_START

from .adam_state import StateKind
from .optim import LRSchedule

Recompute = Literal["none", "selective", "full"]
Numerics = Literal["fast", "exact"]


@dataclass(frozen=True)
class BaseConfig:
    """path: a folder of weights, or "embedded". weights, dtype, device: as `lowrank.load` takes them ("" = default).

    shape: "7b", "13b" or "70b", which the folder must then be of; a plan needs no folder with it.
    """

    path: str = "embedded"
    shape: str = ""
    weights: str = ""
    dtype: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class AdapterTable:
    """The hat: see `lowrank.add_adapter`. from: the folder of a hat to start from, whose shape it then has.

    start: one of `lowrank.adapters.starts.STARTS`, the numbers that a new hat begins with. merge_aware: the 4- or 8-bit
    format that the hat is to be merged into, in which the linears then compute; requantize_every: steps between its
    roundings.
    """

    name: str = "hat"
    rank: int = 8
    alpha: float = 16.0
    targets: str | list[str] = "all"
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    start: str = DEFAULT_START
    from_: str = ""
    merge_aware: str = ""
    requantize_every: int = 4


@dataclass(frozen=True)
class DataConfig:
    """train: a file in one of `data.imports.formats`, "documents" for our own 100, or a list of these.

    max_tokens: longer entries are left out. weights: how often an epoch has the entries of each file, 0.5 is half of
    them. validation: what is held out of them, a share below 1 or a number of entries. seed: of both draws. skip_bad:
    rows that cannot be learned are left out. kinds: files of kinds of document, which the hat then stores. exclude: ids
    of entries whose loss has weight 0: each keeps its place in rows and batches, and nothing of it is learned.

    group_by_length: batches of rows of much the same length. pack: tokens of a row that holds several entries, 0 = off.
    entries, tokens, supervised: what one epoch holds, as a recipe states it; a plan takes them where the data are not
    at hand, a run says where the data differ. 0 = not stated. estimated: whether they were counted on no data.
    """

    train: str | list[str] = "documents"
    weights: list[float] = field(default_factory=list)
    validation: float = 0.0
    seed: int = 0
    skip_bad: bool = False
    kinds: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    template: str = "alpaca"
    max_tokens: int = 1024
    group_by_length: bool = False
    pack: int = 0
    entries: int = 0
    tokens: int = 0
    supervised: int = 0
    estimated: bool = False

    @property
    def sources(self) -> list[str]:
        """The files, one or several."""
        return [self.train] if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class PreferenceConfig:
    """loss: "" learns answers; "dpo" learns to prefer one of two (`preference`).

    beta: the strength of the pull back to the reference, the model as it is before the run. answers: the weight of
    the chosen answer's own loss, nats a token, beside it.
    """

    loss: Literal["", "dpo"] = ""
    beta: float = 0.1
    answers: float = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak rate. schedule: "constant", "linear" or "cosine", the last two down to floor * lr.

    warmup: steps; warmup_ratio: the same as a share of all steps, rounded up. clip: largest gradient norm, 0 = none.
    lora_plus: the rate of lora_B over that of lora_A. states: where and how the moments are kept (`states`).
    max_skipped: steps in a row that may be skipped because loss or gradient is not finite.
    """

    lr: float = 2e-4
    lora_plus: float = 1.0
    schedule: LRSchedule = "constant"
    floor: float = 0.0
    warmup: int = 0
    warmup_ratio: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    clip: float = 0.3
    states: StateKind = "fp32"
    max_skipped: int = 3


@dataclass(frozen=True)
class RunConfig:
    """A step takes `accumulate` batches of `batch` rows, over all processes together.

    epochs: 0.5 ends in the middle of the first. max_steps: the run ends after so many steps at the latest, 0 = off.
    checkpoint_every: in steps; checkpoint_minutes: also when so long has passed, after any batch (0 = off); the end is
    always kept. keep: of the newest checkpoints, the best beside them. recompute: what of the forward pass is computed
    again backward. parallel: what several processes have of the model, a whole each or a part. numerics: "exact" has
    the same bits on every processor (docs/exact.md).
    """

    out: str = "runs/hat"
    epochs: int | float = 3
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    seed: int = 0
    checkpoint_every: int = 50
    checkpoint_minutes: float = 0.0
    keep: int = 2
    recompute: Recompute = "none"
    parallel: Literal["replicas", "shards"] = "replicas"
    numerics: Numerics = "fast"


@dataclass(frozen=True)
class WatchConfig:
    """held_out: entries that are never trained on, a file, "documents" or "" for none; every: in steps, 0 = off.

    patience: measurements without a better held-out loss after which the run ends, 0 = off.
    samples: how many of them are written out by the model each time. trackers: "tensorboard", "wandb", "trackio".
    """

    held_out: str = ""
    every: int = 0
    patience: int = 0
    samples: int = 2
    trackers: list[str] = field(default_factory=list)
