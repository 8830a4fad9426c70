"""The next element of a sequence of numbers as a mixture of Gaussians, whose parameters a network puts out."""

import dataclasses
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pofx.core import Noise

Read = Callable[[int], Float[Tensor, "n outputs"]]
"""What a network says of a position, given what stands to its left."""
Reader = Callable[[Float[Tensor, "n time features"]], Read]
"""How a model reads sequences that are being written."""

#: Log of the standard deviation at which components start, and below which they cannot fall: on numbers that repeat exactly
#: the density would grow without bound.
START, FLOOR = -1.0, -7.0
#: The components' centres start so far apart at most, in standard deviations of the data: equal ones would stay equal.
APART = 0.5


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """p(x | output, before) = sum_k w_k prod_i N(x_i; m_ki, s_ki^2), where m_k = before + what the output says.

    Features are independent within a component, and depend on each other by which component it is. Centres are relative to
    the element before, since what comes next is near what is.

    Arguments:
        features: numbers of an element.
        components: K.

    References:
        Mixture Density Networks (Bishop, 1994), https://publications.aston.ac.uk/id/eprint/373/
        Generating Sequences With Recurrent Neural Networks (Graves, 2013), https://arxiv.org/abs/1308.0850
    """

    features: int
    components: int

    @property
    def outputs(self) -> int:
        """Numbers that the network puts out for an element."""
        return self.components * (1 + 2 * self.features)

    def _parameters(self, output: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the weights (..., components); centres and standard deviations (..., components, features)."""
        logits, rest = output.split((self.components, 2 * self.components * self.features), -1)
        offsets, log_scales = rest.unflatten(-1, (2, self.components, self.features)).unbind(-3)
        start = torch.linspace(-APART, APART, self.components, device=output.device, dtype=output.dtype)[:, None]
        start = start if self.components > 1 else torch.zeros_like(start)
        return logits, before[..., None, :] + offsets + start, (log_scales + START).clamp(min=FLOOR).exp()

    def distribution(
        self, output: Float[Tensor, "... outputs"], before: Float[Tensor, "... features"], temperature: float = 1.0
    ) -> MixtureSameFamily:
        """The distribution of the element after `before`.

        Arguments:
            temperature: t takes the weights to the power of 1 / t and the variances times t.
        """
        logits, centres, scales = self._parameters(output, before)
        components = Independent(Normal(centres, scales * math.sqrt(temperature), validate_args=False), 1, validate_args=False)
        return MixtureSameFamily(Categorical(logits=logits / temperature, validate_args=False), components, validate_args=False)

    def draw(
        self,
        output: Float[Tensor, "n outputs"],
        before: Float[Tensor, "n features"],
        known: Float[Tensor, "n features"],
        mask: Bool[Tensor, "n features"],
        *,
        noise: Noise,
        temperature: float = 1.0,
    ) -> Float[Tensor, "n features"]:
        """The elements after `before`: what `mask` says is `known`, the rest drawn given that, exactly. A temperature of 0 takes the
        mean, and no random number."""
        if temperature == 0:
            return torch.where(mask, known, self.distribution(output, before).mean)
        mixture = self.distribution(output, before, temperature)
        components = mixture.component_distribution.base_dist
        fit = (components.log_prob(known[:, None]) * mask[:, None]).sum(-1)
        # On the CPU, where every machine has float64.
        weights = (mixture.mixture_distribution.logits + fit).to("cpu", torch.float64).softmax(-1)
        rows, chosen = torch.arange(len(output), device=output.device), noise.categorical(weights).to(output.device)
        drawn = components.loc[rows, chosen] + components.scale[rows, chosen] * noise.normal(self.features).to(output.dtype)
        return torch.where(mask, known, drawn)

    def fill(
        self,
        reader: Reader,
        x: Float[Tensor, "batch time features"],
        mask: Bool[Tensor, "batch time features"],
        *,
        noise: Noise,
        first: int = 0,
        temperature: float = 1.0,
    ) -> Float[Tensor, "batch time features"]:
        """x with the numbers where `mask` is False drawn anew, from left to right: given what stands to their left, kept or drawn, and
        what is kept of their own element.

        Arguments:
            first: position from which on there is something to draw.
        """
        x = x.masked_fill(~mask, 0.0)
        read = reader(x)
        for position in range(first, x.shape[1]):
            before = x[:, position - 1] if position else torch.zeros_like(x[:, 0])
            x[:, position] = self.draw(read(position), before, x[:, position], mask[:, position], noise=noise, temperature=temperature)
        return x
