"""FactorVAE: a variational autoencoder whose latent dimensions a discriminator presses to be independent.

    vae:           minimise  -E_q log p(x|z) + KL(q(z|x) || N(0, I)) + gamma TC,     TC = KL(q(z) || prod_j q(z_j)) ~ E_q(z) D(z)
    discriminator: minimise  1/2 (E_q(z) softplus(-D(z)) + E softplus(D(z'))),       z' with each dimension permuted over the batch

At its best D(z) = log q(z) / prod_j q(z_j), whose mean over q(z) is the total correlation.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Independent

from pofx import core, losses
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Decodes,
    Encodes,
    Loss,
    Model,
    Noise,
    Optimizer,
    Player,
    Recipe,
    Samples,
    Scores,
)
from pofx.nn import collapse, importance, labels
from pofx.nn.conv import LARGE
from pofx.nn.gaussian import Gaussian
from pofx.nn.mlp import MLP
from pofx.nn.observation import CONDITION, Observation
from pofx.nn.pair import pair
from pofx.nn.priors import StandardNormal


def permuted(z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
    """Each dimension shuffled over the batch by itself: the marginals stay, what ties them together goes."""
    return z.gather(0, torch.rand_like(z).argsort(0))


class FactorVAE(Model, Samples, Encodes, Decodes, Scores):
    """A variational autoencoder and a discriminator of codes against permuted codes.

    All terms are in nats per example; `total_correlation` is the discriminator's estimate.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983
        Density-ratio Matching under the Bregman Divergence (Sugiyama et al., 2012), https://doi.org/10.1007/s10463-011-0343-8
    """

    kinds = frozenset({"images", "vectors", "sequences"})
    conditions: ClassVar = {Scores: CONDITION}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of FactorVAE."""

        latent_dim: core.Positive = 10
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
        discriminator_hidden: tuple[core.Positive, ...] = (256, 256, 256)
        """Widths of the hidden layers of the discriminator of codes."""
        likelihood: Literal["bernoulli", "gaussian", "logistic"] | None = None
        """p(x|z). None: bernoulli for binary images, logistic for 8-bit ones, gaussian for real numbers (scales are
        learned). bernoulli and gaussian on 8-bit images are losses without a likelihood."""
        gamma: core.NonNegative = 10.0
        """Weight of the total correlation of the codes."""
        warmup: core.Fraction = 0.1
        """Share of the budget over which the weights of both divergences rise from 0."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights of encoder and decoder move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=3e-4, betas=(0.5, 0.9)))
        """How the discriminator's weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.observation = Observation(spec, config.likelihood or Observation.natural(spec))
        self.encoder, self.decoder = pair(
            spec,
            config.architecture,
            config.latent_dim,
            outputs=2 * config.latent_dim,
            hidden=config.hidden,
            channels=config.channels,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.discriminator = MLP(config.latent_dim, 1, config.discriminator_hidden, activation="leaky_relu")
        self.code_prior = StandardNormal(config.latent_dim)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """As a variational autoencoder has it, with a short code, whose dimensions are meant to be looked at."""
        optimizer = Optimizer(lr=2e-3, warmup=0.02, decay="cosine", final=0.02)
        natural = Observation.natural(spec)
        if spec.kind != "images":
            latent_dim = max(2, min(10, math.prod(spec.shape) // 2))
            config = cls.Config(latent_dim=latent_dim, hidden=(256, 256), likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=60))
        if math.prod(spec.shape) > LARGE:
            config = cls.Config(architecture="conv", likelihood=natural, optimizer=dataclasses.replace(optimizer, lr=1e-3))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        if 0 < spec.size < 5000:
            steps = 4500 if math.prod(spec.shape) <= 4096 else 1500
            config = cls.Config(hidden=(512, 256), dropout=0.1, likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=64, budget=budget or Budget(steps=steps), ema=0.998)
        return Recipe(config=cls.Config(likelihood=natural, optimizer=optimizer), batch_size=256, budget=budget or Budget(epochs=30))

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The variational autoencoder, then the discriminator of its codes."""
        config = self.config
        return (
            Player("vae", self.vae_loss, (self.encoder, self.decoder, self.observation), config.optimizer),
            Player("discriminator", self.discriminator_loss, (self.discriminator,), config.discriminator_optimizer),
        )

    def posterior(self, x: Shaped[Tensor, "batch ..."]) -> Gaussian:
        """q(z|x)."""
        return Gaussian.of(self.encoder(x), self.config.latent_dim)

    def _logit(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
        return self.discriminator(z)[:, 0]

    def vae_loss(self, batch: Batch) -> Loss:
        """The terms `reconstruction`, `kl` and `total_correlation`, the last two with their warm-up."""
        q = self.posterior(batch.x)
        z, _ = q.draw(torch.randn_like(q.mu))
        rise = self.risen(self.config.warmup)
        return Loss(
            {
                "reconstruction": self.observation.nll(self.decoder(z), batch.x).mean(),
                "kl": q.kl().mean(),
                "total_correlation": self._logit(z).mean(),
            },
            weights={"kl": rise, "total_correlation": self.config.gamma * rise},
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `joint` and `permuted`, and as a metric the share of codes of either kind that is told right."""
        with torch.no_grad():
            q = self.posterior(batch.x)
            # Two draws, so that no code meets its own parts.
            joint, mixed = q.draw(torch.randn_like(q.mu))[0], permuted(q.draw(torch.randn_like(q.mu))[0])
        on_joint, on_mixed = self._logit(joint), self._logit(mixed)
        right = 0.5 * ((on_joint > 0).float().mean() + (on_mixed <= 0).float().mean())
        return Loss(
            {"joint": losses.NON_SATURATING.of_real(on_joint), "permuted": losses.NON_SATURATING.of_fake(on_mixed)},
            weights={"joint": 0.5, "permuted": 0.5},
            metrics={"accuracy": right},
        )

    @property
    def validation(self) -> str | None:
        """The negative bound on log p(x): reconstruction and divergence, without the total correlation."""
        return "vae/negative_elbo"

    def validate(self, batch: Batch) -> Float[Tensor, ""]:
        """In nats per example."""
        terms = self.vae_loss(batch).terms
        return terms["reconstruction"] + terms["kl"]

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Codes that have collapsed onto the prior, once the divergences have their full weight."""
        if float(self.progress) < self.config.warmup:
            return {}
        q = self.posterior(batch.x)
        return collapse.collapsed(q.mu, q.kl_per_dimension().mean(0))

    def signs(self, batch: Batch) -> Mapping[str, float]:
        """Active units, and nats per dimension."""
        q = self.posterior(batch.x)
        return collapse.signs(q.mu, q.kl_per_dimension().mean(0))

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def notes(self) -> tuple[str, ...]:
        """Which likelihood it is."""
        return (self.observation.note,)

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Scores only where p(x|z) is a likelihood of these data."""
        return super().capabilities - ({Scores} if self.observation.space is None else set())

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The posterior mean. Raises `UsageError` for a label, as all of these do: the model takes none."""
        labels.refuse(label, "a factor_vae")
        return self.posterior(x).mu

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|z); in tables the likeliest category."""
        labels.refuse(label, "a factor_vae")
        return self.observation.mean(self.decoder(z))

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples, decoded from codes of the prior, or of one that was fitted later.

        Arguments:
            mode: the mean of p(x|z) or a draw from it. None: the mean for images, a draw for anything else.
            temperature: multiplies the spread of the codes.
        """
        labels.refuse(label, "a factor_vae")
        drawn = (self.fitted or self.code_prior).draw(noise, temperature=temperature)
        output = self.decoder(drawn)
        return self.observation.show(output, noise, mode)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None, samples: int = importance.BLOCK) -> core.Likelihood:
        """The importance-weighted bound of K draws from q(z|x), in the model's units.

        Arguments:
            samples: K.
        Raises `UsageError` where p(x|z) is no likelihood of these data.
        """
        labels.refuse(label, "a factor_vae")
        space = self.observation.likelihood_space()

        def nll(z: Tensor, rows: slice) -> Tensor:
            repeated = x[rows].repeat_interleave(z.shape[1], 0)
            return self.observation.nll(self.decoder(z.flatten(0, 1)), repeated).view(z.shape[:2])

        weigh = importance.of_gaussians(lambda rows: self.posterior(x[rows]), lambda z: losses.normal_log_prob(z, 0.0, 0.0), nll)
        nats = importance.importance_bound(x, weigh, noise=self.config.latent_dim, samples=samples)
        return core.Likelihood(nats=nats, kind="lower bound", space=space, samples=samples)
