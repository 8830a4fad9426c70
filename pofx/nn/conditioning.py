"""How a game with a discriminator learns P(x|label): what its players are told of the label, and what they pay for it."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Attributes, Classes, Label
from pofx.nn import labels

Conditioning = Literal["projection", "concatenation", "auxiliary_classifier"]
EMBEDDING = 32
"""Length of the vector that tells the generator the label."""


def naming(meaning: Label, output: Float[Tensor, "batch names"], label: Tensor | None) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What a head pays for naming labels, in nats per example that has one, and how well it names them.

    Of classes the cross-entropy of a softmax, of attributes the sum of those of coins, of values half the squared error of their
    standard scores: a Gaussian of variance one, up to a constant. How well: the share of known labels that are named right, of
    values that of their variance which is explained. Both are 0 where a batch has no label.
    """
    if label is None:
        return output.sum() * 0, output.new_zeros(())
    known = ~labels.absent(label)
    if isinstance(meaning, Classes):
        nats = F.cross_entropy(output, label, ignore_index=-1, reduction="sum")
        right = (output.argmax(1) == label).to(output.dtype)
    elif isinstance(meaning, Attributes):
        nats = F.binary_cross_entropy_with_logits(output, label.clamp(min=0).to(output.dtype), known.to(output.dtype), reduction="sum")
        right = ((output > 0) == (label > 0)).to(output.dtype)
    else:
        error = (output - labels.standardised(meaning, label).nan_to_num(0.0)).square() * known
        nats, right = 0.5 * error.sum(), 1 - error.detach()
    rows = known.reshape(len(known), -1).any(1).sum()
    return nats / rows.clamp(min=1), (right * known).sum() / known.sum().clamp(min=1)


class Embedding(nn.Module):
    """A linear map of a label's vector without an offset; of classes that is a table of vectors.

    Arguments:
        width: length of the label's vector. features: length of the result, whose elements start with a variance of 1 for a class.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, width))

    def forward(self, vector: Float[Tensor, "batch width"]) -> Float[Tensor, "batch features"]:
        """(batch, width) to (batch, features)."""
        return F.linear(vector, self.weight)


class Told(nn.Module):
    """What a discriminator is told of the label, and what it says about it; the network between stays the model's own.

        projection:            D(x, y) = D(x) + <V y, phi(x)>
        concatenation:         D(x, y) = D([x, y]); convolutions see the label as one more channel, a learned image for each class
        auxiliary_classifier:  D(x), and a head that names the label of x, real or generated

    phi are the features before the last layer, which is linear, and y is the vector of a label, so that a projection is linear in
    attributes and in values as well.

    Arguments:
        condition: of the model. shape: of x.
        channels: whether the label joins x as a channel, for convolutions, and not as numbers behind it.

    Attributes:
        shape: of what the network is given. outputs: how many numbers it gives; the first is D(x).

    References:
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2017), https://arxiv.org/abs/1610.09585
        cGANs with Projection Discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637
    """

    def __init__(self, condition: labels.Condition, kind: Conditioning, shape: tuple[int, ...], *, channels: bool) -> None:
        super().__init__()
        self.kind, self.meaning, self.shape, self.outputs = kind, condition.meaning, shape, 1
        match kind:
            case "projection":
                self.outputs += condition.width
            case "auxiliary_classifier":
                self.outputs += len(condition.meaning.names)
            case "concatenation" if channels:
                self.shape = (shape[0] + 1, *shape[1:])
                self.embedding = Embedding(condition.width, math.prod(shape[1:]))
            case "concatenation":
                self.shape = (math.prod(shape) + EMBEDDING,)
                self.embedding = Embedding(condition.width, EMBEDDING)

    def join(self, x: Float[Tensor, "batch ..."], vector: Float[Tensor, "batch width"]) -> Float[Tensor, "batch ..."]:
        """What the network is given for x under a label of this vector."""
        if self.kind != "concatenation":
            return x
        told = self.embedding(vector)
        return torch.cat((x, told.view(-1, 1, *self.shape[1:])) if len(self.shape) > 1 else (x.flatten(1), told), 1)

    def logit(self, output: Float[Tensor, "batch outputs"], vector: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """D(x, y) of the network's output."""
        if self.kind != "projection":
            return output[:, 0]
        return output[:, 0] + torch.linalg.vecdot(output[:, 1:], vector)

    def naming(self, output: Float[Tensor, "batch outputs"], label: Tensor | None) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What the head of an auxiliary classifier pays, and how well it names (see `naming`)."""
        return naming(self.meaning, output[:, 1:], label)
