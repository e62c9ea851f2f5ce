"""Each number of the write-up beside ours: what follows from shapes, and what was measured on the base at hand.

Shapes are computed, not quoted: of a 10,000 x 10,000 matrix, of Llama 2 7B, and of the base that was run. Measured
numbers (`measured`) are of the run; on another base or machine than the write-up's they are no test of its claim.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from ..adapters.accounting import COMMON_TARGETS, adapter_parameters, base_items, lora_parameters, square_matrix
from ..model.config import PRESETS, ModelConfig

D, RANK = 10_000, 8
LLAMA = PRESETS["7b"]
Measured = Mapping[str, Mapping[str, float]]  # "documents", "mixture", "base" -> what was found


@dataclass(frozen=True)
class Claim:
    """A number of the write-up, ours, and how the two stand to each other.

    ours   what follows from the write-up's own shapes
    found  what was measured here, on the base at hand; empty where a claim is of shapes alone
    """

    what: str
    theirs: str
    ours: str
    found: str
    verdict: str

    HEAD: ClassVar[tuple[str, ...]] = ("what", "the write-up", "from its shapes", "found here", "verdict")

    @property
    def cells(self) -> list[str]:
        """The cells of its row."""
        return [self.what, self.theirs, self.ours, self.found, self.verdict]

    def to_json(self) -> dict[str, str]:
        """The row as JSON."""
        return asdict(self)


def claims(base: ModelConfig, measured: Measured) -> list[Claim]:
    """Every claim, in the write-up's order.

    base      the shapes of the base that was run
    measured  of each hat: bytes, seconds, parameters, entries; of the base: bytes in bf16 and in nf4-dq
    """
    same = base.parameter_shapes() == LLAMA.parameter_shapes()
    return [*_matrix(), *_base(same, measured["base"]), *_adapters(same, measured)]


def _matrix() -> list[Claim]:
    trained, full = lora_parameters(D, D, RANK), D * D
    shapes = square_matrix(D).linear_shapes()["attention.wq"]
    assert shapes == (D, D)
    share = f"{trained / full:.2%}".replace("%", " %")
    return [
        Claim("elements of a 10,000 x 10,000 matrix", "100 million", f"{full:,}", "", "right"),
        Claim("of those, trained at rank 8", "160,000", f"{trained:,}", "", "right"),
        Claim("which is", "0.016 %", share, "", f"wrong by ten: {trained:,} / {full:,} = {trained / full:g}"),
    ]


def _base(same: bool, found: Mapping[str, float]) -> list[Claim]:
    full = sum(item.bytes for item in base_items(LLAMA, "bf16"))
    items = base_items(LLAMA, "nf4-dq")
    four_bit, codes = sum(item.bytes for item in items), items[0].bytes
    return [
        Claim("Llama 2 7B in 16 bits", "13 GB", _gb(full), _gb(found["full"]), _near(same, "right")),
        Claim(
            "the same in 4 bits",
            "~3.2 GB",
            f"{_gb(codes)} of codes, {_gb(four_bit)} with block statistics, embedding and head",
            _gb(found["four_bit"]),
            _near(same, "right of the codes alone"),
        ),
    ]


def _adapters(same: bool, measured: Measured) -> list[Claim]:
    all_seven = 4 * adapter_parameters(LLAMA, 8, COMMON_TARGETS["all seven linears"])
    attention = 4 * adapter_parameters(LLAMA, 16, COMMON_TARGETS["wq, wk, wv, wo"])
    small, large = measured["documents"], measured["mixture"]
    size = "a size follows from rank, targets and type, never from the data"
    return [
        Claim("entries of the first data set", "100", "", f"{small['entries']:,.0f}", "ours are generated, not by GPT"),
        Claim(
            "its hat",
            "80 MB",
            f"{_mb(all_seven)}: rank 8 on all seven, fp32",
            _mb(small["bytes"]),
            _near(same, "right"),
        ),
        Claim("training it", "about 5 minutes", "", _time(small["seconds"]), _near(same, "on this machine")),
        Claim("entries of the second", "about 15k", "", f"{large['entries']:,.0f}", _count(large["entries"])),
        Claim(
            'its hat, "somehow smaller"',
            "67.3 MB",
            f"{_mb(attention)}: rank 16 on wq, wk, wv, wo, fp32",
            _mb(large["bytes"]),
            _near(same, f"0.19 MB unexplained; {size}"),
        ),
        Claim("training it", "a bit over 2 hours", "", _time(large["seconds"]), _near(same, "on this machine")),
    ]


def _near(same: bool, verdict: str) -> str:
    """A verdict on a base that may be another than the write-up's."""
    return verdict if same else f"{verdict}; found on another base"


def _count(entries: float) -> str:
    return "the same" if entries >= 14_500 else f"a stand-in of {entries:,.0f}: times and scores are not comparable"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
