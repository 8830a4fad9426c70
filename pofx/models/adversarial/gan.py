"""The generative adversarial network: a generator turns noise into data, a discriminator tells them from real ones.

    discriminator: minimise  E softplus(-D(x)) + E softplus(D(G(z))) + gamma/2 E ||grad_x D(x)||^2
    generator:     minimise  E softplus(-D(G(z)))                    (non-saturating)

The penalty on real examples (R1) is what makes the game converge; it is part of every move of the discriminator.
Other losses, pairs of logits (relativistic), other penalties, networks, spectral normalisation and the minibatch standard
deviation are switches, each free of the others. With labels both networks are told the class.
"""

import dataclasses
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Epochs, Judges, Loss, Model, Noise, Optimizer, Player, Recipe, Samples, UsageError
from pofx.nn import labels
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss, image_game, normalise_spectrally, resting
from pofx.nn.conv import ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.relaxation import relaxed

EMBEDDING = 32
"""Length of the vector that tells the generator the class."""


class GAN(Model, Samples, Judges):
    """A generator and a discriminator; by default with the non-saturating loss and the R1 penalty.

    A conditional discriminator adds the inner product of its features with a vector of the class (projection).

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
        The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024), https://arxiv.org/abs/2501.05441
        cGANs with Projection Discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637
    """

    kinds = frozenset({"images", "vectors"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the generative adversarial network."""

        latent_dim: core.Positive = 64
        """Length of the noise vector."""
        architecture: Literal["dense", "conv", "residual"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only; residual: with residual blocks between them."""
        hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense discriminator, outermost first; the generator mirrors them."""
        channels: core.Positive = 32
        """Channels of the generator at the full size of an image (conv, residual), doubling with each halving; the
        discriminator has twice as many."""
        attention: bool = False
        """Whether both networks attend over whole images (conv, residual), where they have half of the code's fineness."""
        minibatch_std: Annotated[int, core.Range(0)] = 0
        """Examples in a group whose standard deviation the discriminator sees; 0: it judges each example alone."""
        spectral_norm: bool = False
        """Whether the discriminator's weights are divided by their largest singular values."""
        loss: losses.AdversarialName = "non_saturating"
        """What logits cost: non_saturating, minimax (the lecture's, which stalls), least_squares, hinge, wasserstein."""
        relativistic: bool = False
        """Whether the loss is of D(x) - D(G(z)), a real and a generated example at a time, instead of each logit alone."""
        gamma: core.NonNegative = 0.3
        """Weight of the R1 penalty, 1/2 E ||grad_x D(x)||^2."""
        gamma_fake: core.NonNegative = 0.0
        """Weight of the R2 penalty, the same on generated examples."""
        wgan_gp: core.NonNegative = 0.0
        """Weight of the WGAN-GP penalty, E (||grad D|| - 1)^2 between real and generated examples; 10 is usual."""
        dragan: core.NonNegative = 0.0
        """Weight of the DRAGAN penalty, E (||grad D|| - 1)^2 around real examples; 10 is usual."""
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
            if self.minibatch_std == 1:
                raise UsageError("minibatch-std must be at least 2: the examples of a group, or 0 for none")
            if self.phase_epochs is not None and (self.discriminator_steps, self.generator_steps) != (1, 1):
                raise UsageError("phase-epochs takes the place of discriminator-steps and generator-steps: give one or the other")

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture != "dense" and spec.kind != "images":
            raise UsageError(f"architecture {config.architecture} is for images, and these data are {spec.kind}: choose dense")
        if config.architecture == "dense" and config.attention:
            raise UsageError("attention is between the places of an image's features: choose the architecture conv or residual")
        if config.minibatch_std and config.architecture == "dense" and not config.hidden:
            raise UsageError("minibatch-std is shown to the discriminator's last hidden layer: give hidden at least one")
        self.rules = Rules(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Rules)})
        self.observation = Observation(spec, "squared_error")
        width, logits = config.latent_dim, 1
        if config.conditional:
            self.register_buffer("label_counts", labels.zero_counts(spec, "gan"))
            places = len(self.label_counts) + 1
            self.embedding = nn.Embedding(places, EMBEDDING)
            # One row of the last layer for all examples, and one for each class: v . phi(x) + v_label . phi(x).
            width, logits = width + EMBEDDING, 1 + places
        self.generator: nn.Module
        self.discriminator: nn.Module
        group = config.minibatch_std
        if config.architecture == "dense":
            self.generator = MLP(width, spec.shape, config.hidden[::-1], activation="leaky_relu")
            self.discriminator = MLP(spec.shape, logits, config.hidden, activation="leaky_relu", minibatch_std=group)
        else:
            blocks, attention, channels = int(config.architecture == "residual"), config.attention, config.channels
            self.generator = ConvDecoder(width, spec.shape, channels=channels, activation="leaky_relu", blocks=blocks, attention=attention)
            self.discriminator = ConvEncoder(
                spec.shape, logits, channels=2 * channels, activation="leaky_relu", blocks=blocks, attention=attention, minibatch_std=group
            )
        if config.spectral_norm:
            normalise_spectrally(self.discriminator)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images and small dense networks for anything else."""
        if spec.kind == "images":
            # Quick moves that slow down: after five minutes they are well ahead of small ones.
            optimizer = Optimizer(lr=2e-3, betas=(0.0, 0.99), decay="linear", decay_start=0.3, final=0.1)
            config = cls.Config(architecture="conv", optimizer=optimizer, discriminator_optimizer=optimizer)
            batch_size, enough = image_game(spec, budget)
            return Recipe(config=config, batch_size=batch_size, budget=enough, ema=0.998)
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
        """The terms `real` and `fake` (or `paired`) in the unit of the loss, and the penalties; in training mode it also counts
        the labels."""
        label = self._condition(batch, count=True)
        with torch.no_grad():
            fake = self._fake(len(batch.x), label)
        # Logits are asked for once for the real and once for as many generated examples, under the same labels.
        return discriminator_loss(lambda x: self._logit(x, label), batch.x, fake, self.rules)

    def generator_loss(self, batch: Batch) -> Loss:
        """The term `adversarial`, in the unit of the loss. Of the batch only its size and its labels are used, unless pairs are
        judged."""
        label = self._condition(batch)
        with resting(self.discriminator):
            paid, logits = generator_loss(lambda x: self._logit(x, label), batch.x, self._fake(len(batch.x), label), self.rules)
        return Loss({"adversarial": paid}, metrics={"fake_logit": logits.detach().mean()})

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

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None) -> Shaped[Tensor, "n ..."]:
        """n new examples; of the classes `label`, or of classes drawn from the training marginal.

        Raises `UsageError` for labels that are not n classes of the training data.
        """
        self._check(label, n, lowest=0)
        if self.config.conditional and label is None:
            label = labels.draw(self.label_counts, noise)
        return self.observation.draw(self._output(noise.normal(self.config.latent_dim), label), noise)

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x), higher for real: the log-odds of real against generated under the losses in nats, known up to a constant where the
        loss is of pairs; a conditional model without a label uses the null label."""
        self._check(label, len(x))
        return self._logit(x, label)
