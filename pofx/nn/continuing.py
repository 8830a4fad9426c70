"""What a model of texts, or of sequences of numbers, can do once it says of each element what may come next."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from pofx import core
from pofx.core import Capability, Forecasts, Likelihood, Model, Noise, Predicts, UsageError
from pofx.nn.gaussian_mixture import GaussianMixture
from pofx.nn.sampling import Choice, Read, check
from pofx.nn.writing import Passage, Writes

Said = tuple[Tensor, Tensor, Tensor]
"""Of a part of some examples: what the network says of its elements, the element before each of them, and they themselves."""


class Continues(Model, Writes, Forecasts):
    """A model without labels that predicts each element from those before it, and with this alone does everything else.

    Elements are tokens, which follow a softmax, or the numbers of a step, which follow a mixture of Gaussians.

    Attributes:
        length: elements of an example. mixture: what the next numbers follow.
    """

    conditions: ClassVar = {Predicts: "train it on a text", Forecasts: "train it on a series"}
    length: int
    mixture: GaussianMixture

    @abstractmethod
    def outputs(self, x: Shaped[Tensor, "batch time ..."]) -> Iterator[Said]:
        """What the network says of the elements of x, of any length, each from those before it; some of them at a time."""

    @abstractmethod
    def reader(self, x: Shaped[Tensor, "batch time ..."]) -> Read:
        """A function from rising positions to what the network says of them, given what x holds to the left at the time of the
        call."""

    @property
    def capabilities(self) -> frozenset[type[Capability]]:
        """Texts are predicted token by token, and go on from a prompt; sequences of numbers are forecast."""
        of: dict[type[Capability], str] = {Predicts: "tokens", Forecasts: "sequences"}
        return super().capabilities - {capability for capability, kind in of.items() if kind != self.spec.kind}

    # ------------------------------------------------------------------------------------------------------- elements

    def _first(self, n: int) -> Shaped[Tensor, "n one ..."]:
        """What stands before the first element: a symbol outside the vocabulary, or zeros that are marked."""
        if self.vocabulary:
            return torch.full((n, 1), self.vocabulary, device=self.device)
        begin = torch.zeros(n, 1, self.spec.shape[-1] + 1, device=self.device, dtype=next(self.parameters()).dtype)
        begin[..., -1] = 1.0
        return begin

    def _marked(self, x: Shaped[Tensor, "batch time ..."]) -> Shaped[Tensor, "batch time ..."]:
        """Elements as the network reads them: numbers with a mark that says that they are no beginning."""
        return x if self.vocabulary else F.pad(x, (0, 1))

    def _nll(self, output: Tensor, previous: Tensor, x: Shaped[Tensor, "batch time ..."]) -> Float[Tensor, "batch time"]:
        """-log p of each element."""
        if self.vocabulary:
            return F.cross_entropy(output.flatten(0, 1), x.flatten(), reduction="none").view(x.shape)
        return -self.mixture.distribution(output, previous[..., :-1]).log_prob(x)

    def _cost(self, said: Iterable[Said]) -> Float[Tensor, " batch"]:
        """-log p of whole examples."""
        return torch.stack([self._nll(*part).sum(1) for part in said]).sum(0)

    # --------------------------------------------------------------------------------------------------- capabilities

    def logits(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Logits of every token of x from those before it; x may be of any length."""
        parts = list(self.stretches(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def stretches(self, x: Int64[Tensor, "batch time"]) -> Iterator[Float[Tensor, "batch stretch vocabulary"]]:
        """The same, a window at a time."""
        return (output for output, _, _ in self.outputs(x))

    @torch.no_grad()
    def log_prob(self, x: Shaped[Tensor, "batch time ..."], *, label: Tensor | None = None) -> Likelihood:
        """Exact log p(x) of each example, which may be of any length. Raises `UsageError` for a label, as all of these do."""
        self._refuse(label)
        if self.vocabulary:
            check(x.flatten(), self.vocabulary)
        return Likelihood(-self._cost(self.outputs(x)), "exact", "tokens" if self.vocabulary else "density")

    def _write(self, n: int, choice: Choice, passage: Passage, *, noise: Noise, label: Tensor | None) -> Shaped[Tensor, "n ..."]:
        """Of numbers the temperature multiplies the variances, and 0, or the mode "mean", takes the mean of what comes next."""
        if self.vocabulary:
            return super()._write(n, choice, passage, noise=noise, label=label)
        self._refuse(label)
        length, prompt, stop, watch = passage
        if (stop, watch, dataclasses.replace(choice, temperature=1.0, mode="draw")) != (None, None, Choice()):
            raise UsageError("sequences of numbers have no tokens to choose among: give a temperature or a mode only")
        length = self.length if length is None else length
        core.Range(0).check("length", length)
        given = torch.zeros(0, self.spec.shape[-1]) if prompt is None else prompt
        x = given.to(next(self.parameters())).repeat(n, 1, 1)
        return torch.cat((x, self._go_on(x, length, noise, 0.0 if choice.mode == "mean" else choice.temperature)), 1)

    @torch.no_grad()
    def complete(
        self, x: Shaped[Tensor, "batch time ..."], mask: Bool[Tensor, "batch time ..."], *, noise: Noise, temperature: float = 1.0
    ) -> Shaped[Tensor, "batch time ..."]:
        """x with the elements where `mask`, of the shape of x, is False drawn anew, from left to right.

        Each is drawn given what stands to its left, kept or drawn, and given the features of its own step that are kept; what
        stands to its right has no influence. Raises `UsageError` where a kept token lies outside the vocabulary.
        """
        if self.vocabulary:
            return super().complete(x, mask, noise=noise, temperature=temperature)
        core.Range(0).check("temperature", temperature)
        return self.mixture.fill(self.reader, x, mask, noise=noise, temperature=temperature)

    @torch.no_grad()
    def forecast(self, x: Float[Tensor, "batch time features"], horizon: int, *, noise: Noise) -> Float[Tensor, "batch horizon features"]:
        """The next `horizon` steps of each sequence, drawn one after the other. Raises `UsageError` for a horizon below 1."""
        core.Range(1).check("horizon", horizon)
        return self._go_on(x, horizon, noise, 1.0)

    def _go_on(
        self, x: Float[Tensor, "batch time features"], steps: int, noise: Noise, temperature: float
    ) -> Float[Tensor, "batch steps features"]:
        """What may come after x."""
        whole = F.pad(x, (0, 0, 0, steps))
        mask = torch.arange(whole.shape[1], device=x.device).expand(whole.shape[:2])[..., None].expand_as(whole) < x.shape[1]
        return self.mixture.fill(self.reader, whole, mask, noise=noise, first=x.shape[1], temperature=temperature)[:, x.shape[1] :]
