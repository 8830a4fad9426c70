"""Dense networks: a multilayer perceptron for vectors and flattened images."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network, UsageError
from pofx.nn.dropout import Dropout
from pofx.nn.minibatch import MinibatchStd

Activation = Literal["relu", "leaky_relu", "silu", "tanh", "glu"]


def nonlinearity(name: Activation) -> nn.Module:
    """The non-linearity called `name`, number by number; leaky_relu has slope 0.2, as discriminators use it.

    Raises `UsageError` for glu, which takes two numbers for each that it gives.
    """
    match name:
        case "relu":
            return nn.ReLU(inplace=True)
        case "leaky_relu":
            return nn.LeakyReLU(0.2, inplace=True)
        case "silu":
            return nn.SiLU()
        case "tanh":
            return nn.Tanh()
        case "glu":
            raise UsageError("the activation glu, a gate beside each unit, is for dense layers: choose another for convolutions")


class MLP(Network):
    """A multilayer perceptron from tensors of shape (batch, *in_shape) to tensors of shape (batch, *out_shape).

    Arguments:
        in_shape: shape of one input, which is flattened; a number is a vector of that length.
        out_shape: shape of one output; a number is a vector of that length.
        hidden: widths of the hidden layers; none gives one linear map.
        activation: non-linearity after each hidden layer; glu gives each unit a gate, a(x) sigmoid(b(x)), of as many weights again.
        norm: whether each hidden layer is layer-normalised, before its non-linearity (glu: after it).
        dropout: share of the hidden units that training silences.
        context: length of a vector (a label, say) that is joined to the flattened input; 0 for none.
        minibatch_std: group of the minibatch standard deviation that is joined to what the last hidden layer sees; 0 for none.

    References:
        Layer Normalization (Ba et al., 2016), https://arxiv.org/abs/1607.06450
        Language Modeling with Gated Convolutional Networks (Dauphin et al., 2017; glu), https://arxiv.org/abs/1612.08083
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        out_shape: int | Sequence[int],
        hidden: Sequence[int] = (),
        *,
        activation: Activation = "silu",
        norm: bool = False,
        dropout: float = 0.0,
        context: int = 0,
        minibatch_std: int = 0,
    ) -> None:
        super().__init__()
        self.out_shape = (out_shape,) if isinstance(out_shape, int) else tuple(out_shape)
        width = context + (in_shape if isinstance(in_shape, int) else math.prod(in_shape))
        self.layers = nn.Sequential()
        for number, size in enumerate(hidden, 1):
            if minibatch_std and number == len(hidden):
                self.layers.append(MinibatchStd(minibatch_std))
                width += 1
            if activation == "glu":
                self.layers.extend((nn.Linear(width, 2 * size), nn.GLU(1)))
            else:
                self.layers.append(nn.Linear(width, size))
            if norm:
                self.layers.append(nn.LayerNorm(size))
            if activation != "glu":
                self.layers.append(nonlinearity(activation))
            if dropout:
                self.layers.append(Dropout(dropout))
            width = size
        self.layers.append(nn.Linear(width, math.prod(self.out_shape)))

    def compute(self, x: Float[Tensor, "batch ..."], context: Float[Tensor, "batch context"] | None = None) -> Float[Tensor, "batch ..."]:
        """(batch, *in_shape), and (batch, context) where there is one, to (batch, *out_shape)."""
        x = x.flatten(1) if context is None else torch.cat((x.flatten(1), context), 1)
        return self.layers(x).unflatten(1, self.out_shape)
