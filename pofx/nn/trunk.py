"""The layers of a discriminator below its last one, on which several heads can stand."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.conv import ConvEncoder
from pofx.nn.mlp import MLP


class Trunk(Network):
    """All layers of a network but its last, as one flat vector of features an example.

    Arguments:
        dense: what comes after layers that keep places apart.
    """

    def __init__(self, layers: nn.Sequential, dense: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.dense = layers, dense or nn.Identity()

    def compute(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        """(batch, ...) to (batch, features)."""
        if isinstance(self.layers[0], nn.Linear):
            return self.layers(x.flatten(1))
        # Channels last, as the layers have it in memory: flattening is then no copy.
        return self.dense(self.layers(x).permute(0, 2, 3, 1).flatten(1))


def trunk(
    shape: Sequence[int], architecture: Literal["dense", "conv"], *, hidden: Sequence[int], channels: int, units: int = 0
) -> tuple[Trunk, int]:
    """The trunk of a discriminator of x, and the number of its features.

    Arguments:
        hidden: widths of dense layers. channels: at the first halving of an image (conv). units: of a dense layer after the convolutions;
            0 for none.
    """
    if architecture == "dense":
        layers = MLP(shape, 1, hidden, activation="leaky_relu").layers
        return Trunk(layers[:-1]), layers[-1].in_features
    judge = ConvEncoder(shape, 1, channels=channels, activation="leaky_relu", dense=units)
    return Trunk(judge.features, judge.dense), judge.head.in_features
