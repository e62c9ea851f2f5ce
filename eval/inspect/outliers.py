"""Outliers of all block linears, summed up by layer, by channel of the residual stream, and by neuron of the FFN.

A channel is an input of wq, wk, wv, w1 and w3, and an output of wo and w2; a neuron an output of w1 and w3, and an
input of w2. Large weights recur in few of both, over all layers: a row a tensor does not show that.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

# The axis of W [N, K] along which a linear's weights belong to a channel, and to a neuron.
_CHANNEL = {"wq": 1, "wk": 1, "wv": 1, "w1": 1, "w3": 1, "wo": 0, "w2": 0}
_NEURON = {"w1": 0, "w3": 0, "w2": 1}
SHOWN = 5


@dataclass
class OutlierSums:
    """Outliers by layer, by channel, and by (layer, neuron), of so many weights; the layers that a channel is in"""

    weights: int = 0
    by_layer: Counter[int] = field(default_factory=Counter)
    by_channel: Counter[int] = field(default_factory=Counter)
    layers_of_channel: dict[int, set[int]] = field(default_factory=dict)
    by_neuron: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.by_layer.values())

    def add(self, name: str, places: Tensor, weights: int) -> None:
        """Adds one linear: the places [n, 2] of its outliers among so many weights, as (row, column)."""
        _, number, linear = name.removesuffix(".weight").split(".", 2)
        layer, short = int(number), linear.partition(".")[2]
        self.weights += weights
        self.by_layer[layer] += len(places)
        for channel, count in Counter(places[:, _CHANNEL[short]].tolist()).items():
            self.by_channel[channel] += count
            self.layers_of_channel.setdefault(channel, set()).add(layer)
        if short in _NEURON:
            for neuron, count in Counter(places[:, _NEURON[short]].tolist()).items():
                self.by_neuron[layer, neuron] += count

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(head, rows): the layers, channels and neurons that hold most of them."""
        layers = [(f"layer {layer}", count, "") for layer, count in self.by_layer.most_common(SHOWN)]
        channels = [
            (f"channel {channel}", count, f"in {len(self.layers_of_channel[channel])} of {len(self.by_layer)} layers")
            for channel, count in self.by_channel.most_common(SHOWN)
        ]
        most = self.by_neuron.most_common(SHOWN)
        neurons = [(f"neuron {neuron} of layer {layer}", count, "") for (layer, neuron), count in most]
        rows = [
            [what, f"{count:,}", f"{count / self.count:.1%}", note]
            for part in (layers, channels, neurons)
            for what, count, note in part
            if count
        ]
        return ["outliers by", "weights", "of all", ""], rows

    def sentences(self, deviations: int) -> Iterator[str]:
        """The fewest layers, channels and neurons that hold half of all."""
        if not self.count:
            yield f"No weight of the block linears lies beyond {deviations} standard deviations."
            return
        yield (
            f"{self.count:,} of {self.weights:,} weights of the block linears lie beyond {deviations} standard "
            f"deviations, one in {self.weights // self.count:,}: {_half(self.by_layer.values())} of "
            f"{len(self.by_layer)} layers hold half of them, {_half(self.by_channel.values())} channels half, and "
            f"{_half(self.by_neuron.values())} neurons half of those in FFNs."
        )

    def to_json(self) -> dict[str, object]:
        """The counts, the largest first."""
        return {
            "weights": self.weights,
            "outliers": self.count,
            "by_layer": dict(self.by_layer.most_common()),
            "by_channel": dict(self.by_channel.most_common()),
            "by_neuron": [[*place, count] for place, count in self.by_neuron.most_common()],
        }


def _half(counts: Iterable[int]) -> int:
    """The least number of places that hold half of all."""
    values = sorted(counts, reverse=True)
    left = sum(values) / 2
    for number, value in enumerate(values, start=1):
        left -= value
        if left <= 0:
            return number
    return len(values)
