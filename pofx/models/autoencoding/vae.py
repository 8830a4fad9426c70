"""The variational autoencoder: data are noise z from N(0, I), passed through a decoder; an encoder guesses the z behind an x.

    log p(x) >= E_q(z|x) log p(x|z) - beta KL(q(z|x) || N(0, I))        (a bound for beta = 1)

Both networks climb the right-hand side, through z = mu(x) + sigma(x) eps. With labels it is p(x|y) throughout.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Loss, Model, Noise, Optimizer, Recipe, Samples, Scores, UsageError
from pofx.nn import labels
from pofx.nn.conv import LARGE, ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation

BLOCK = 64
"""Importance samples that are drawn and weighed together; their noise does not depend on how many more follow."""
ELEMENTS = 2**24
"""Decoded numbers held in memory at once while importance samples are weighed."""


class VAE(Model, Samples, Encodes, Decodes, Scores):
    """An encoder that gives a Gaussian over codes, and a decoder that gives a distribution over data.

    The loss terms `reconstruction` (-E log p(x|z)) and `kl` are in nats per example.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl
        Importance Weighted Autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2020), https://arxiv.org/abs/2006.13202
    """

    kinds = frozenset({"images", "vectors", "sequences"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the variational autoencoder."""

        latent_dim: core.Positive = 32
        """Length of the code."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (512, 512)
        """Widths of the hidden layers of the dense encoder, outermost first; the decoder mirrors them."""
        norm: bool = True
        """Whether the dense hidden layers are layer-normalised."""
        channels: core.Positive = 32
        """Channels at the first halving of an image (conv); they double with each further one."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of the encoder's hidden units that training silences (of the last layer's features for conv)."""
        likelihood: Literal["bernoulli", "gaussian", "logistic"] | None = None
        """p(x|z). None: bernoulli for binary images, logistic for 8-bit ones, gaussian for real numbers (scales are
        learned). bernoulli and gaussian on 8-bit images are losses without a likelihood."""
        beta: core.NonNegative = 1.0
        """Weight of the divergence between q(z|x) and the prior."""
        warmup: core.Fraction = 0.1
        """Share of the budget over which the weight of the divergence rises from 0 to beta."""
        conditional: bool = False
        """Whether to learn p(x|class); needs data with classes."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        context = 0
        if config.conditional:
            self.register_buffer("label_counts", labels.zero_counts(spec, "vae"))
            context = len(self.label_counts) + 1
        self.observation = Observation(spec, config.likelihood or Observation.natural(spec))
        z = config.latent_dim
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "dense":
            self.encoder = MLP(spec.shape, 2 * z, config.hidden, norm=config.norm, dropout=config.dropout, context=context)
            self.decoder = MLP(z + context, spec.shape, config.hidden[::-1], norm=config.norm)
        else:
            self.encoder = ConvEncoder(spec.shape, 2 * z, channels=config.channels, dropout=config.dropout, context=context)
            self.decoder = ConvDecoder(z + context, spec.shape, channels=config.channels)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Networks as wide as the data ask for, with the likelihood that the data have; convolutions for large images."""
        natural = Observation.natural(spec)
        optimizer = Optimizer(lr=2e-3, warmup=0.02, decay="cosine", final=0.02)
        if spec.kind != "images":
            latent_dim = max(2, min(16, math.prod(spec.shape) // 2))
            config = cls.Config(latent_dim=latent_dim, hidden=(256, 256), likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=60))
        if math.prod(spec.shape) > LARGE:
            config = cls.Config(latent_dim=64, architecture="conv", likelihood=natural, optimizer=dataclasses.replace(optimizer, lr=1e-3))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        if 0 < spec.size < 5000:
            # Few images are soon learned by heart: some dropout, and the best validation score decides. Large ones
            # cost so much more that a third of the moves must do.
            steps = 4500 if math.prod(spec.shape) <= 4096 else 1500
            config = cls.Config(latent_dim=32, hidden=(512, 256), dropout=0.1, likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=64, budget=budget or Budget(steps=steps), ema=0.998)
        config = cls.Config(latent_dim=32, likelihood=natural, optimizer=optimizer)
        return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=30))

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Scores only where p(x|z) is a likelihood of these data."""
        return super().capabilities - ({Scores} if self.observation.space is None else set())

    # ------------------------------------------------------------------------------------------------- networks

    def _context(self, label: Int64[Tensor, " batch"] | None, like: Tensor) -> Float[Tensor, "batch classes_and_null"] | None:
        """The label as a one-hot row; the last class is the null label of rows without one."""
        if not self.config.conditional:
            return None
        null = len(self.label_counts)
        return F.one_hot(labels.place(label, like, null), null + 1).to(torch.float32)

    def _check(self, label: Tensor | None, n: int, *, lowest: int = -1) -> None:
        labels.check(label, n, self.label_counts if self.config.conditional else None, "vae", lowest=lowest)

    def posterior(self, x: Shaped[Tensor, "batch ..."], label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu and log_var of q(z|x), each (batch, latent)."""
        context = self._context(label, x)
        mu, log_var = (self.encoder(x) if context is None else self.encoder(x, context)).chunk(2, 1)
        # An outlier must not overflow exp: a variance within e^+-20 is all that there is.
        return mu, log_var.clamp(-20, 20)

    def _output(self, z: Float[Tensor, "batch latent"], label: Tensor | None = None) -> Tensor:
        context = self._context(label, z)
        return self.decoder(z if context is None else torch.cat((z, context), 1))

    # ----------------------------------------------------------------------------------------------------- training

    def loss(self, batch: Batch) -> Loss:
        """-E_q log p(x|z) and KL(q(z|x) || N(0, I)) with its warm-up; in training mode it also counts the labels."""
        label = batch.label if self.config.conditional else None
        if self.training and label is not None:
            labels.count(self.label_counts, label)
            label = labels.hide(label)
        mu, log_var = self.posterior(batch.x, label)
        z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
        reconstruction = self.observation.nll(self._output(z, label), batch.x).mean()
        kl = losses.kl_to_standard_normal(mu, log_var).mean()
        rise = 1.0 if self.config.warmup == 0 else min(1.0, float(self.progress) / self.config.warmup)
        return Loss({"reconstruction": reconstruction, "kl": kl}, weights={"kl": self.config.beta * rise})

    # ------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> Independent:
        """N(0, I)."""
        zeros = torch.zeros(self.config.latent_dim, device=self.device)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The posterior mean; a conditional model without a label uses the null label."""
        self._check(label, len(x))
        return self.posterior(x, label)[0]

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|z); in tables the likeliest category. Without a label, as `encode`."""
        self._check(label, len(z))
        return self.observation.mean(self._output(z, label))

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples; of the classes `label`, or of classes drawn from the training marginal.

        Arguments:
            mode: the mean of p(x|z) or a draw from it. None: the mean for images, a draw for anything else.
            temperature: multiplies the standard deviation of the prior.
        """
        self._check(label, n, lowest=0)
        if self.config.conditional and label is None:
            label = labels.draw(self.label_counts, noise)
        # Under the prior the code does not depend on the label, nor does it under one that was fitted to all codes.
        z = temperature * noise.normal(self.config.latent_dim) if self.fitted is None else self.fitted.draw(noise, temperature=temperature)
        output = self._output(z, label)
        mode = mode or ("mean" if self.spec.kind == "images" else "draw")
        return self.observation.mean(output) if mode == "mean" else self.observation.draw(output, noise)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None, samples: int = BLOCK) -> core.Likelihood:
        """The importance-weighted bound log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), in the model's units.

        It lies below log p(x) in expectation and rises to it with K. The noise of an example is a function of the
        example alone, so its number does not depend on the company it is scored in. A conditional model without labels
        gives log sum_y p(y) p(x|y) over the training marginal.

        Arguments:
            samples: K. Raises `UsageError` where p(x|z) is no likelihood of these data.
        """
        if self.observation.space is None:
            kind = self.observation.kind
            raise UsageError(
                f"{kind} is a loss on these data, not a likelihood: train with --model.likelihood {Observation.natural(self.spec)}"
            )
        if samples < 1:
            raise UsageError(f"samples must be at least 1, not {samples}")
        self._check(label, len(x))
        rows = max(1, ELEMENTS // (BLOCK * math.prod(self.spec.shape)))
        if not self.config.conditional or label is not None:
            choices = [label]
            log_marginal = x.new_zeros(1)
        else:
            choices = [torch.full((len(x),), y, device=x.device) for y in range(len(self.label_counts))]
            log_marginal = (self.label_counts.to(torch.float32) + (self.label_counts.sum() == 0)).log()
            log_marginal = log_marginal - log_marginal.logsumexp(0)
        bounds = [torch.cat(list(self._bounds(x, y, samples, rows))) for y in choices]
        nats = (torch.stack(bounds) + log_marginal[:, None]).logsumexp(0)
        return core.Likelihood(nats=nats, kind="lower bound", space=self.observation.space, samples=samples)

    def _bounds(self, x: Tensor, label: Tensor | None, samples: int, rows: int) -> Iterator[Float[Tensor, " rows"]]:
        """The bound on log p(x), or log p(x|label), for `rows` examples at a time."""
        generator = torch.Generator()
        for first in range(0, len(x), rows):
            part = x[first : first + rows]
            y = None if label is None else label[first : first + rows]
            mu, log_var = self.posterior(part, y)
            digests = [hashlib.blake2b(row.cpu().numpy().tobytes(), digest_size=8).hexdigest() for row in part]
            total = part.new_full((len(part),), -math.inf)
            for block in range(0, samples, BLOCK):
                drawn = [torch.randn(BLOCK, mu.shape[1], generator=generator.manual_seed(core.mix(digest, block))) for digest in digests]
                k = min(BLOCK, samples - block)
                z = mu[:, None] + (0.5 * log_var[:, None]).exp() * torch.stack(drawn).to(mu.device)[:, :k]
                flat = z.flatten(0, 1)
                nll = self.observation.nll(self._output(flat, None if y is None else y.repeat_interleave(k)), part.repeat_interleave(k, 0))
                posterior = losses.normal_log_prob(z, mu[:, None], log_var[:, None])
                weights = losses.normal_log_prob(z, 0.0, 0.0) - posterior - nll.view(len(part), k)
                total = torch.logaddexp(total, weights.logsumexp(1))
            yield total - math.log(samples)
