"""The generative adversarial network: a generator turns noise into data, a discriminator tells them from real ones.

    discriminator: minimise  E softplus(-D(x)) + E softplus(D(G(z))) + gamma/2 E ||grad_x D(x)||^2
    generator:     minimise  E softplus(-D(G(z)))                    (non-saturating)

The penalty on real examples (R1) is what makes the game converge; it is part of every move of the discriminator.
With labels both networks are told the class.
"""

import dataclasses
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Independent

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Epochs, Judges, Loss, Model, Noise, Optimizer, Player, Recipe, Samples, UsageError
from pofx.nn import labels
from pofx.nn.adversarial import discriminator_loss
from pofx.nn.conv import ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import relaxed

EMBEDDING = 32
"""Length of the vector that tells the generator the class."""


class GAN(Model, Samples, Decodes, Judges):
    """A generator and a discriminator with the non-saturating loss and the R1 penalty.

    A conditional discriminator adds the inner product of its features with a vector of the class (projection).

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
        cGANs with Projection Discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637
    """

    kinds = frozenset({"images", "vectors"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the generative adversarial network."""

        latent_dim: core.Positive = 64
        """Length of the noise vector."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense discriminator, outermost first; the generator mirrors them."""
        channels: core.Positive = 32
        """Channels of the generator at the full size of an image (conv), doubling with each halving; the discriminator
        has twice as many."""
        gamma: core.NonNegative = 0.3
        """Weight of the R1 penalty, 1/2 E ||grad_x D(x)||^2."""
        conditional: bool = False
        """Whether to learn P(x|class); needs data with classes."""
        discriminator_steps: core.Positive = 1
        """Moves of the discriminator in a round."""
        generator_steps: core.Positive = 1
        """Moves of the generator in a round."""
        phase_epochs: Annotated[float | None, core.Range(0, open=True)] = None
        """Long phases instead: both players move for this many passes over the training data before it is the other's turn."""
        optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the generator's weights move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the discriminator's weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.phase_epochs is not None and (self.discriminator_steps, self.generator_steps) != (1, 1):
                raise UsageError("phase-epochs takes the place of discriminator-steps and generator-steps: give one or the other")

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        self.observation = Observation(spec, "squared_error")
        self.code_prior = StandardNormal(config.latent_dim)
        width, logits = config.latent_dim, 1
        if config.conditional:
            self.register_buffer("label_counts", labels.zero_counts(spec, "gan"))
            places = len(self.label_counts) + 1
            self.embedding = nn.Embedding(places, EMBEDDING)
            # One row of the last layer for all examples, and one for each class: v . phi(x) + v_label . phi(x).
            width, logits = width + EMBEDDING, 1 + places
        self.generator: nn.Module
        self.discriminator: nn.Module
        if config.architecture == "dense":
            self.generator = MLP(width, spec.shape, config.hidden[::-1], activation="leaky_relu")
            self.discriminator = MLP(spec.shape, logits, config.hidden, activation="leaky_relu")
        else:
            self.generator = ConvDecoder(width, spec.shape, channels=config.channels, activation="leaky_relu")
            self.discriminator = ConvEncoder(spec.shape, logits, channels=2 * config.channels, activation="leaky_relu")

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images and small dense networks for anything else."""
        if spec.kind == "images":
            # Quick moves that slow down: after five minutes they are well ahead of small ones.
            optimizer = Optimizer(lr=2e-3, betas=(0.0, 0.99), decay="linear", decay_start=0.3, final=0.1)
            config = cls.Config(architecture="conv", optimizer=optimizer, discriminator_optimizer=optimizer)
            return Recipe(config=config, batch_size=64, budget=budget or Budget(epochs=10), ema=0.998)
        config = cls.Config(
            latent_dim=max(8, min(64, math.prod(spec.shape))),
            hidden=(128, 128, 128),
            gamma=0.5,
            optimizer=Optimizer(lr=1e-3, betas=(0.0, 0.99), decay="linear", final=0.1),
            discriminator_optimizer=Optimizer(lr=1e-3, betas=(0.0, 0.99), decay="linear", final=0.1),
        )
        return Recipe(config=config, batch_size=256, budget=budget or Budget(steps=6000), ema=0.998)

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The discriminator, then the generator."""
        config = self.config
        phase = None if config.phase_epochs is None else Epochs(config.phase_epochs)
        generator = (self.generator, self.embedding) if config.conditional else (self.generator,)
        return (
            Player(
                "discriminator",
                self.discriminator_loss,
                (self.discriminator,),
                config.discriminator_optimizer,
                steps=phase or config.discriminator_steps,
            ),
            Player("generator", self.generator_loss, generator, config.optimizer, steps=phase or config.generator_steps),
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` and `fake` in nats, and `penalty`; in training mode it also counts the labels."""
        label = self._condition(batch, count=True)
        with torch.no_grad():
            fake = self._fake(len(batch.x), label)
        # Logits are asked for once for the real and once for as many generated examples, under the same labels.
        return discriminator_loss(lambda x: self._logit(x, label), batch.x, fake, self.config.gamma)

    def generator_loss(self, batch: Batch) -> Loss:
        """The term `adversarial`, non-saturating, in nats. Of the batch only its size and its labels are used."""
        label = self._condition(batch)
        logits = self._logit(self._fake(len(batch.x), label), label)
        return Loss({"adversarial": losses.generator_loss(logits)}, metrics={"fake_logit": logits.detach().mean()})

    def _condition(self, batch: Batch, *, count: bool = False) -> Tensor | None:
        if not self.config.conditional or batch.label is None:
            return None
        if not self.training:
            return batch.label
        if count:
            labels.count(self.label_counts, batch.label)
        return labels.hide(batch.label)

    def _check(self, label: Tensor | None, n: int, *, lowest: int = -1) -> None:
        labels.check(label, n, self.label_counts if self.config.conditional else None, "gan", lowest=lowest)

    def _output(self, z: Float[Tensor, "batch latent"], label: Tensor | None) -> Float[Tensor, "batch ..."]:
        if self.config.conditional:
            z = torch.cat((z, self.embedding(labels.place(label, z, len(self.label_counts)))), 1)
        return self.generator(z)

    def _fake(self, n: int, label: Tensor | None) -> Float[Tensor, "batch ..."]:
        return relaxed(self.spec, self._output(torch.randn(n, self.config.latent_dim, device=self.device), label))

    def _logit(self, x: Float[Tensor, "batch ..."], label: Tensor | None) -> Float[Tensor, " batch"]:
        logits = self.discriminator(2 * x - 1 if self.spec.kind == "images" else x)
        if not self.config.conditional:
            return logits[:, 0]
        return logits[:, 0] + logits[:, 1:].gather(1, labels.place(label, x, len(self.label_counts))[:, None])[:, 0]

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: neither player's loss says how good the samples are."""
        return None

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """G(z); in tables the likeliest category. A conditional model without a label uses the null label."""
        self._check(label, len(z))
        return self.observation.mean(self._output(z, label))

    def sample(
        self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0, truncation: float | None = None
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples; of the classes `label`, or of classes drawn from the training marginal.

        Arguments:
            temperature: multiplies the noise.
            truncation: numbers of the noise beyond +- this are drawn anew (before `temperature`): below 2 samples become more
                typical and more alike.
        Raises `UsageError` for labels that are not n classes of the training data.
        """
        self._check(label, n, lowest=0)
        if self.config.conditional and label is None:
            label = labels.draw(self.label_counts, noise)
        if truncation is None:
            z = (self.fitted or self.code_prior).draw(noise, temperature=temperature)
        elif self.fitted is None:
            z = self.code_prior.truncated(noise, truncation, temperature=temperature)
        else:
            raise UsageError("truncation is of the model's own prior, and codes are drawn from another one: leave one of them out")
        return self.observation.draw(self._output(z, label), noise)

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x): the log-odds of real against generated; a conditional model without a label uses the null label."""
        self._check(label, len(x))
        return self._logit(x, label)
