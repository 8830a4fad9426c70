"""The sequence-to-sequence autoencoder: one recurrent network reads a text or a sequence into a code, another writes it again.

    minimise over encoder e and decoder d    E sum_t -log p(x_t | d(e(x), x_1, ..., x_t-1))

While training, the decoder is given the true elements before x_t (teacher forcing), some of them blank (word dropout), so
that it must ask the code; afterwards those that it wrote itself. Codes are drawn as the autoencoder draws them: from the
Gaussian with the mean and covariance of the training codes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from pofx import core
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Decodes,
    Encodes,
    Loss,
    Model,
    Network,
    Noise,
    Optimizer,
    Positive,
    Recipe,
    Samples,
    UsageError,
)
from pofx.nn import labels
from pofx.nn.moments import RunningGaussian
from pofx.nn.next_token import probabilities
from pofx.nn.observation import Observation
from pofx.nn.recurrent import Carried, Cell, recurrent


def _element(spec: DataSpec, width: int) -> nn.Module:
    """From an element of a sequence to `width` features; of tokens, the last one is the begin symbol, and stands for blanks."""
    return nn.Embedding(spec.vocabulary + 1, width) if spec.kind == "tokens" else nn.Linear(spec.shape[-1], width)


class _Encoder(Network):
    """Reads a sequence in both directions; the code is a linear map of where each direction ends."""

    def __init__(self, spec: DataSpec, latent_dim: int, *, cell: Cell, width: int, hidden: int) -> None:
        super().__init__()
        self.element = _element(spec, width)
        self.cell = recurrent(cell, width, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, latent_dim)

    def compute(self, x: Shaped[Tensor, "batch time ..."]) -> Float[Tensor, "batch latent"]:
        _, state = self.cell(self.element(x))
        last = state[0] if isinstance(state, tuple) else state
        return self.head(last.transpose(0, 1).flatten(1))


class _Decoder(Network):
    """Says each element from the code, which it is reminded of at each, and from the elements before."""

    def __init__(self, spec: DataSpec, latent_dim: int, *, cell: Cell, width: int, hidden: int) -> None:
        super().__init__()
        self.element = _element(spec, width)
        self.code = nn.Linear(latent_dim, width)
        self.start = nn.Linear(latent_dim, (2 if cell == "lstm" else 1) * hidden)
        self.cell = recurrent(cell, width, hidden)
        self.head = nn.Linear(hidden, spec.vocabulary if spec.kind == "tokens" else spec.shape[-1])

    def compute(
        self, previous: Shaped[Tensor, "batch time ..."], z: Float[Tensor, "batch latent"], carried: Carried | None = None
    ) -> Float[Tensor, "batch time outputs"]:
        """Logits, or means, of the element after each of `previous`; `carried` continues, and is moved on."""
        state = None if carried is None else carried.state
        if state is None:
            parts = self.start(z).tanh()[None].contiguous().chunk(2 if isinstance(self.cell, nn.LSTM) else 1, -1)
            state = tuple(part.contiguous() for part in parts) if len(parts) == 2 else parts[0]
        outputs, state = self.cell(self.element(previous) + self.code(z)[:, None], state)
        if carried is not None:
            carried.state = state
        return self.head(outputs)


class RecurrentAutoencoder(Model, Samples, Encodes, Decodes):
    """A recurrent encoder, a code, and a recurrent decoder, of windows of a text or of sequences.

    The loss term `reconstruction` is in nats per example for tokens, whose elements are softmaxes, and 1/2 ||x - d||^2 per
    example for sequences; the metric `per_token` is the former in nats per token.

    References:
        Sequence to Sequence Learning with Neural Networks (Sutskever et al., 2014), https://arxiv.org/abs/1409.3215
        Unsupervised Learning of Video Representations using LSTMs (Srivastava et al., 2015), https://arxiv.org/abs/1502.04681
        Generating Sentences from a Continuous Space (Bowman et al., 2016), section 3.1 (word dropout), https://arxiv.org/abs/1511.06349
    """

    stopgap = "a Gaussian fitted to the training codes"
    kinds = frozenset({"tokens", "sequences"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the sequence-to-sequence autoencoder."""

        window: Positive = 16
        """Tokens of one example (texts)."""
        latent_dim: Positive = 128
        """Length of the code."""
        cell: Literal["lstm", "gru"] = "lstm"
        """The recurrent cell of the encoder and of the decoder."""
        width: Positive = 64
        """Features of an element."""
        hidden: Positive = 256
        """Units of the recurrent cell; the encoder has as many for each direction."""
        word_dropout: core.Fraction = 0.5
        """Share of the elements before that are blank for the decoder in training."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.tokens = spec.kind == "tokens"
        self.window = config.window if self.tokens else None
        self.length = config.window if self.tokens else spec.shape[0]
        self.blank = spec.vocabulary
        self.observation = None if self.tokens else Observation(spec, "squared_error")
        of = {"cell": config.cell, "width": config.width, "hidden": config.hidden}
        self.encoder = _Encoder(spec, config.latent_dim, **of)
        self.decoder = _Decoder(spec, config.latent_dim, **of)
        self.gaussian = RunningGaussian(config.latent_dim)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Windows of 16 tokens, or fewer of a short text; smaller networks for sequences of few numbers."""
        optimizer = Optimizer(lr=5e-3 if spec.kind == "tokens" else 2e-3, warmup=0.02, decay="cosine", final=0.02, clip=1000.0)
        if spec.kind == "tokens":
            window = max(1, min(16, (spec.size or 1_000_000) // 16))
            config = cls.Config(window=window, optimizer=optimizer)
            return Recipe(config=config, batch_size=32, budget=budget or Budget(minutes=5), ema=0.99)
        latent_dim = max(2, min(32, math.prod(spec.shape) // 2))
        config = cls.Config(latent_dim=latent_dim, width=32, hidden=64, optimizer=optimizer)
        return Recipe(config=config, batch_size=64, budget=budget or Budget(epochs=60), ema=0.99)

    # ------------------------------------------------------------------------------------------------------ training

    def loss(self, batch: Batch) -> Loss:
        """`reconstruction` under teacher forcing; in training mode it also follows the moments of the codes."""
        x = batch.x
        z = self.encoder(x)
        previous = self._shifted(x)
        if self.training:
            self.gaussian.follow(z.detach())
            previous = self._blanked(previous)
        output = self.decoder(previous, z)
        if self.observation is not None:
            return Loss({"reconstruction": self.observation.nll(output, x).mean()})
        nll = F.cross_entropy(output.flatten(0, 1), x.flatten())
        return Loss({"reconstruction": nll * x.shape[1]}, metrics={"per_token": nll.detach()})

    def validate(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss in nats per token (a mean over the tokens of windows of different lengths), or per example."""
        loss = self.loss(batch)
        return loss.metrics["per_token"] if self.tokens else loss.total

    def _first(self, n: int) -> Shaped[Tensor, "n one ..."]:
        """What stands before the first element."""
        if self.tokens:
            return torch.full((n, 1), self.blank, device=self.device)
        return torch.zeros(n, 1, self.spec.shape[-1], device=self.device)

    def _shifted(self, x: Shaped[Tensor, "batch time ..."]) -> Shaped[Tensor, "batch time ..."]:
        return torch.cat((self._first(len(x)), x[:, :-1]), 1)

    def _blanked(self, x: Shaped[Tensor, "batch time ..."]) -> Shaped[Tensor, "batch time ..."]:
        blank = torch.rand(x.shape[:2], device=x.device) < self.config.word_dropout
        return x.masked_fill(blank, self.blank) if self.tokens else x.masked_fill(blank[..., None], 0.0)

    # -------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> Distribution:
        """The Gaussian with the mean and covariance of the training codes."""
        return self.gaussian.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The code of each example, which may be of any length. Raises `UsageError` for a label, as all of these do."""
        labels.refuse(label, "a recurrent_autoencoder")
        return self.encoder(x)

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Shaped[Tensor, "batch ..."]:
        """Of tokens the likeliest one at each place given those before, `window` of them; of sequences the means."""
        labels.refuse(label, "a recurrent_autoencoder")
        return self._write(z, lambda output: output.argmax(-1))

    def _write(
        self, z: Float[Tensor, "batch latent"], choose: Callable[[Float[Tensor, "batch vocabulary"]], Int64[Tensor, " batch"]]
    ) -> Shaped[Tensor, "batch ..."]:
        """Element by element, each given those written before; `choose` picks tokens from their logits."""
        carried, written = Carried(), [self._first(len(z))]
        for _ in range(self.length):
            output = self.decoder(written[-1], z, carried)
            written.append(choose(output[:, -1]).to(z.device)[:, None] if self.tokens else output)
        return torch.cat(written[1:], 1)

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples, decoded from codes of the Gaussian of the training codes.

        Arguments:
            mode: a draw of each token, or the likeliest one. None: a draw. Sequences have means only, and refuse a draw.
            temperature: multiplies the standard deviation of the codes.
        """
        labels.refuse(label, "a recurrent_autoencoder")
        if mode == "draw" and not self.tokens:
            raise UsageError("this decoder gives means of sequences and no distribution: leave --mode draw out")
        z = (self.fitted or self.gaussian).draw(noise, temperature=temperature)
        if mode == "mean" or not self.tokens:
            return self.decode(z)
        return self._write(z, lambda logits: noise.categorical(probabilities(logits)))
