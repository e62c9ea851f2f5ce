"""Exact gradients of single documents, and their products.    (TracIn, arXiv 2002.08484; LESS, arXiv 2402.04333)

    g_i = d L_i / d theta,    L_i = the nats of document i over its supervised tokens, theta the hat's numbers

A step's gradient is sum_i g_i / S with S its supervised tokens, so that g_i is what document i brought to it: nothing
is projected or estimated. A document stands in a row of its own; packed behind others its gradient is the same, but for
rounding. A dropout is switched off, whose masks would be those of a batch.

P numbers of the hat, M test documents, N training documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import rows_of_one
from lowrank.eval.metrics.metric import Array
from lowrank.model.llama import Llama
from lowrank.progress import ProgressBar

from ..step import batch_loss

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Products:
    """Products of gradients at one checkpoint, under one scale D, which is diagonal.

    between  [M, N]: g_z^T D g_i
    own      [N]: g_i^T D g_i
    """

    between: Array
    own: Array


def document_gradient(model: Llama, example: Example, parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """g_i [P], in the order of the parameters"""
    nats, _ = batch_loss(model, rows_of_one([example]))
    gradients = torch.autograd.grad(nats, list(parameters.values()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def gradient_products(
    model: Llama,
    parameters: Mapping[str, nn.Parameter],
    train: Sequence[Example],
    test: Sequence[Example],
    scales: Mapping[Name, Tensor],
    bar: ProgressBar,
) -> dict[Name, Products]:
    """The products under each scale [P], by its name

    The scaled gradients of the test documents are held, [M, P] for each scale; those of training documents pass by.
    """
    between = {name: np.empty((len(test), len(train))) for name in scales}
    own = {name: np.empty(len(train)) for name in scales}
    held = {name: scale.new_empty(len(test), len(scale)) for name, scale in scales.items()}
    for place, example in enumerate(test):
        gradient = document_gradient(model, example, parameters)
        for name, scale in scales.items():
            torch.mul(gradient, scale, out=held[name][place])
        bar.update()
    for place, example in enumerate(train):
        gradient = document_gradient(model, example, parameters)
        for name, scale in scales.items():
            between[name][:, place] = (held[name] @ gradient).cpu().numpy()
            own[name][place] = float(gradient @ (scale * gradient))
        bar.update()
    return {name: Products(between[name], own[name]) for name in scales}
