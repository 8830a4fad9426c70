"""The adversarial autoencoder: an autoencoder whose codes a discriminator cannot tell from draws of N(0, I).

    autoencoder:   minimise  reconstruction of x from e(x)  +  w E softplus(-D(e(x)))
    discriminator: minimise  E softplus(-D(z)) + E softplus(D(e(x))) + gamma/2 E ||grad_z D(z)||^2,    z ~ N(0, I)

The discriminator sees codes alone. What it asks of the encoder is what a divergence asks in a variational autoencoder,
but of the codes of all data together, so that the code of one example may stay a point.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Independent

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Loss, Model, Noise, Optimizer, Player, Recipe, Samples
from pofx.nn import labels
from pofx.nn.adversarial import Rules, discriminator_loss
from pofx.nn.conv import LARGE
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.pair import pair
from pofx.nn.priors import StandardNormal

SETTLED = 0.5
"""Share of the budget after which codes should be where the prior is."""
OFF = 0.3
"""Nats a dimension by which the Gaussian with the codes' mean and variance may diverge from N(0, 1)."""


class AdversarialAutoencoder(Model, Samples, Encodes, Decodes):
    """An encoder and a decoder that reconstruct, and a discriminator of codes.

    The term `reconstruction` is 1/2 ||x - d(e(x))||^2 per example (nats under a Gaussian of variance one, up to a constant;
    in tables categories and missing indicators are cross-entropies), the adversarial terms are in nats. The paper
    alternates a phase of reconstruction and one of regularisation; here their sum is one move, so that `adversarial_weight`
    decides between them, which an optimizer with a scale of its own for each phase would undo.

    References:
        Adversarial Autoencoders (Makhzani et al., 2015), https://arxiv.org/abs/1511.05644
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
    """

    kinds = frozenset({"images", "vectors", "sequences"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the adversarial autoencoder."""

        latent_dim: core.Positive = 16
        """Length of the code."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (512, 256)
        """Widths of the hidden layers of the dense encoder, outermost first; the decoder mirrors them."""
        channels: core.Positive = 32
        """Channels at the first halving of an image (conv); they double with each further one."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of the encoder's hidden units that training silences (of the last layer's features for conv)."""
        discriminator_hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the discriminator of codes."""
        adversarial_weight: core.NonNegative = 0.3
        """Weight of what the encoder pays for codes that the discriminator tells from the prior's (w)."""
        gamma: core.NonNegative = 0.1
        """Weight of the R1 penalty, 1/2 E ||grad_z D(z)||^2 on codes of the prior."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights of encoder and decoder move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(betas=(0.5, 0.99)))
        """How the discriminator's weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.observation = Observation(spec, "squared_error")
        self.encoder, self.decoder = pair(
            spec, config.architecture, config.latent_dim, hidden=config.hidden, channels=config.channels, dropout=config.dropout
        )
        self.discriminator = MLP(config.latent_dim, 1, config.discriminator_hidden, activation="leaky_relu")
        self.code_prior = StandardNormal(config.latent_dim)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Networks as an autoencoder has them, with codes as short as the data allow."""
        optimizer = Optimizer(lr=1e-3, warmup=0.02, decay="cosine", final=0.02)
        judge = Optimizer(lr=1e-3, betas=(0.5, 0.99), decay="cosine", final=0.1)
        moves = {"optimizer": optimizer, "discriminator_optimizer": judge}
        if spec.kind != "images":
            latent_dim = max(1, min(16, (math.prod(spec.shape) + 1) // 2))
            config = cls.Config(latent_dim=latent_dim, hidden=(256, 256), **moves)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(steps=6000), ema=0.998)
        if math.prod(spec.shape) > LARGE:
            config = cls.Config(latent_dim=32, architecture="conv", adversarial_weight=1.0, **moves)
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        if 0 < spec.size < 5000:
            steps = 4500 if math.prod(spec.shape) <= 4096 else 1500
            return Recipe(config=cls.Config(dropout=0.1, **moves), batch_size=64, budget=budget or Budget(steps=steps), ema=0.998)
        # Errors of larger pictures are larger, and so must be what stands against them.
        return Recipe(config=cls.Config(adversarial_weight=1.0, **moves), batch_size=256, budget=budget or Budget(epochs=30))

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The autoencoder, then the discriminator of its codes."""
        config = self.config
        return (
            Player("autoencoder", self.autoencoder_loss, (self.encoder, self.decoder), config.optimizer),
            Player("discriminator", self.discriminator_loss, (self.discriminator,), config.discriminator_optimizer),
        )

    def _logit(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
        return self.discriminator(z)[:, 0]

    def autoencoder_loss(self, batch: Batch) -> Loss:
        """The terms `reconstruction` and `adversarial`."""
        z = self.encoder(batch.x)
        logits = self._logit(z)
        return Loss(
            {
                "reconstruction": self.observation.nll(self.decoder(z), batch.x).mean(),
                "adversarial": losses.NON_SATURATING.of_generator(logits),
            },
            weights={"adversarial": self.config.adversarial_weight},
            metrics={"code_logit": logits.detach().mean()},
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` (codes of the prior), `fake` (codes of data) and `penalty`."""
        with torch.no_grad():
            codes = self.encoder(batch.x)
        return discriminator_loss(self._logit, torch.randn_like(codes), codes, Rules(gamma=self.config.gamma))

    @property
    def validation(self) -> str | None:
        """None: no player's loss says how well both codes and reconstructions are."""
        return None

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Codes whose means and variances are not those of the prior that samples are drawn from, once the game had time."""
        z = self.encoder(batch.x)
        if len(z) < 2 or float(self.progress) < SETTLED:
            return {}
        mean, variance = z.mean(0), z.var(0).clamp(min=1e-12)
        nats = float(losses.kl_to_standard_normal(mean[None], variance.log()[None]).mean()) / z.shape[1]
        if nats <= OFF:
            return {}
        return {
            "codes off the prior": f"means and variances of the codes are {nats:.2g} nats a dimension from those of N(0, I), so that "
            "samples are decoded from codes that data do not have: give adversarial-weight a larger value, or train for longer"
        }

    # -------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The code of each example. Raises `UsageError` for a label, as all of these do: the model takes none."""
        labels.refuse(label, "an adversarial_autoencoder")
        return self.encoder(x)

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The data that each code stands for; in tables the likeliest category."""
        labels.refuse(label, "an adversarial_autoencoder")
        return self.observation.mean(self.decoder(z))

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0) -> Shaped[Tensor, "n ..."]:
        """n new examples, decoded from codes of the prior, or of one that was fitted later.

        Arguments:
            temperature: multiplies the spread of the codes.
        """
        labels.refuse(label, "an adversarial_autoencoder")
        drawn = (self.fitted or self.code_prior).draw(noise, temperature=temperature)
        return self.observation.draw(self.decoder(drawn), noise)
