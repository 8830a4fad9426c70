"""An encoder and the decoder that goes back, dense or convolutional."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from pofx.core import DataSpec, UsageError
from pofx.nn.conv import ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP


def pair(
    spec: DataSpec,
    architecture: Literal["dense", "conv"],
    latent_dim: int,
    *,
    outputs: int | None = None,
    hidden: Sequence[int],
    channels: int,
    norm: bool = False,
    dropout: float = 0.0,
) -> tuple[nn.Module, nn.Module]:
    """Networks from x to `outputs` numbers, and from a code to an output of the shape of x.

    Arguments:
        latent_dim: length of a code; `outputs` is as many where it is None.
        hidden: widths of the dense encoder's layers, outermost first; the decoder mirrors them.
        channels: at the first halving of an image; they double with each further one.
        norm: whether dense hidden layers are layer-normalised. dropout: in the encoder.
    Raises `UsageError` for convolutions on data that are no images.
    """
    outputs = outputs or latent_dim
    if architecture == "dense":
        return (
            MLP(spec.shape, outputs, hidden, norm=norm, dropout=dropout),
            MLP(latent_dim, spec.shape, hidden[::-1], norm=norm),
        )
    if spec.kind != "images":
        raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
    return (
        ConvEncoder(spec.shape, outputs, channels=channels, dropout=dropout),
        ConvDecoder(latent_dim, spec.shape, channels=channels),
    )
