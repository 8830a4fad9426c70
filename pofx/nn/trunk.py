"""The layers of a discriminator below its last one, on which several heads can stand."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.conv import ConvEncoder
from pofx.nn.mlp import MLP


class Trunk(Network):
    """All layers of a network but its last, as one flat vector of features an example."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def compute(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        """(batch, ...) to (batch, features)."""
        if isinstance(self.layers[0], nn.Linear):
            return self.layers(x.flatten(1))
        # Channels last, as the layers have it in memory: flattening is then no copy.
        return self.layers(x).permute(0, 2, 3, 1).flatten(1)


def trunk(shape: Sequence[int], architecture: Literal["dense", "conv"], *, hidden: Sequence[int], channels: int) -> tuple[Trunk, int]:
    """The trunk of a discriminator of x, and the number of its features.

    Arguments:
        hidden: widths of dense layers. channels: at the first halving of an image (conv).
    """
    if architecture == "dense":
        layers = MLP(shape, 1, hidden, activation="leaky_relu").layers
        return Trunk(layers[:-1]), layers[-1].in_features
    judge = ConvEncoder(shape, 1, channels=channels, activation="leaky_relu")
    return Trunk(judge.features), judge.head.in_features
