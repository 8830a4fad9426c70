"""The generative adversarial network: a generator turns noise into data, a discriminator tells them from real ones.

    discriminator: minimise  E softplus(-D(x)) + E softplus(D(G(z))) + gamma/2 E ||grad_x D(x)||^2
    generator:     minimise  E softplus(-D(G(z)))                    (non-saturating)

The penalty on real examples (R1) is what makes the game converge; it is part of every move of the discriminator.
Other losses, pairs of logits (relativistic), other penalties, networks, spectral normalisation and the minibatch standard
deviation are switches, each free of the others. With labels, of whatever kind, the generator is told the label, and
`conditioning` says how the discriminator deals with it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Independent

from pofx import core, losses
from pofx.core import (
    Batch,
    Budget,
    Classes,
    Classifies,
    DataSpec,
    Decodes,
    Epochs,
    Judges,
    Loss,
    Model,
    Noise,
    Optimizer,
    Player,
    Recipe,
    Samples,
    UsageError,
)
from pofx.nn import labels
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss, image_recipe, normalise_spectrally, resting, vector_recipe
from pofx.nn.augmentation import Augmentation, Augmented
from pofx.nn.conditioning import EMBEDDING, Conditioning, Embedding, Told
from pofx.nn.conv import ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import relaxed


class GAN(Model, Samples, Decodes, Judges, Classifies):
    """A generator and a discriminator; by default with the non-saturating loss and the R1 penalty.

    Conditional games learn classes, attributes or values: the generator gets a vector of the label beside the noise, and the
    discriminator is told it by projection or concatenation (see `pofx.nn.conditioning.Told`), or has a head that names it
    (auxiliary classifier), whose term `label`, in nats per labelled example, both players lower.

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
        The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024), https://arxiv.org/abs/2501.05441
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2017), https://arxiv.org/abs/1610.09585
        cGANs with Projection Discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637
    """

    kinds = frozenset({"images", "vectors"})
    conditions: ClassVar = {Classifies: "train on classes with --model.conditional true --model.conditioning auxiliary_classifier"}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Augmented):
        """Configuration of the generative adversarial network."""

        latent_dim: core.Positive = 64
        """Length of the noise vector."""
        architecture: Literal["dense", "conv", "residual"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only; residual: with residual blocks between them."""
        hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense discriminator, outermost first; the generator mirrors them."""
        generator_activation: Literal["relu", "leaky_relu", "silu"] = "leaky_relu"
        """Non-linearity of the generator. relu gives up a side for good, so that a dense one draws sharper borders between modes."""
        channels: core.Positive = 32
        """Channels of the generator at the full size of an image (conv, residual), doubling with each halving; the
        discriminator has twice as many."""
        dense_units: core.Natural = 256
        """Units of the dense layer after the discriminator's convolutions and before the generator's (conv, residual), which sees how the
        places of an image fit together; 0: none."""
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
        gamma_final: core.PositiveFloat = 1.0
        """Share of gamma and gamma-fake that is left at the end of the budget; they fall exponentially."""
        wgan_gp: core.NonNegative = 0.0
        """Weight of the WGAN-GP penalty, E (||grad D|| - 1)^2 between real and generated examples; 10 is usual."""
        dragan: core.NonNegative = 0.0
        """Weight of the DRAGAN penalty, E (||grad D|| - 1)^2 around real examples; 10 is usual."""
        conditional: bool = False
        """Whether to learn P(x|label); needs data with labels: classes, attributes or values."""
        conditioning: Conditioning = "projection"
        """How the discriminator of a conditional game deals with the label: projection, an inner product of it with the features;
        concatenation, joined to x; auxiliary_classifier, named by a head, which both players help."""
        auxiliary: core.NonNegative = 1.0
        """Weight of naming the label (auxiliary_classifier)."""
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
            if self.conditioning != "projection" and not self.conditional:
                raise UsageError(f"conditioning {self.conditioning} is for a conditional game: give --model.conditional true as well")
            if self.auxiliary != 1 and self.conditioning != "auxiliary_classifier":
                raise UsageError("auxiliary weighs the head of an auxiliary classifier: give --model.conditioning auxiliary_classifier too")

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture != "dense" and spec.kind != "images":
            raise UsageError(f"architecture {config.architecture} is for images, and these data are {spec.kind}: choose dense")
        if config.architecture == "dense" and config.attention:
            instead = (
                "choose the architecture conv or residual" if spec.kind == "images" else f"leave it out, since these data are {spec.kind}"
            )
            raise UsageError(f"attention is between the places of an image's features: {instead}")
        if config.minibatch_std and config.architecture == "dense" and not config.hidden:
            raise UsageError("minibatch-std is shown to the discriminator's last hidden layer: give hidden at least one")
        self.augmentation = Augmentation(spec, config.augment, config.augment_strength)
        self.observation = Observation(spec, "squared_error")
        self.code_prior = StandardNormal(config.latent_dim)
        width, shape, outputs = config.latent_dim, spec.shape, 1
        self.condition: labels.Condition | None = None
        self.told: Told | None = None
        if config.conditional:
            self.condition = labels.Condition(spec, "gan")
            self.embedding = Embedding(self.condition.width, EMBEDDING)
            self.told = Told(self.condition, config.conditioning, spec.shape, channels=config.architecture != "dense")
            width, shape, outputs = width + EMBEDDING, self.told.shape, self.told.outputs
        self.generator: nn.Module
        self.discriminator: nn.Module
        group = config.minibatch_std
        if config.architecture == "dense":
            self.generator = MLP(width, spec.shape, config.hidden[::-1], activation=config.generator_activation)
            self.discriminator = MLP(shape, outputs, config.hidden, activation="leaky_relu", minibatch_std=group)
        else:
            channels, activation = config.channels, config.generator_activation
            both = {"blocks": int(config.architecture == "residual"), "attention": config.attention, "dense": config.dense_units}
            self.generator = ConvDecoder(width, spec.shape, channels=channels, activation=activation, **both)
            self.discriminator = ConvEncoder(shape, outputs, channels=2 * channels, activation="leaky_relu", minibatch_std=group, **both)
        if config.spectral_norm:
            normalise_spectrally(self.discriminator)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images and small dense networks for anything else."""
        if spec.kind == "images":
            return image_recipe(cls.Config, spec, budget, architecture="conv")
        if not spec.columns:
            # Few dimensions are hard where modes are far apart and narrow. Noise of the data's own dimension, quick moves that
            # come to rest and a penalty that fades find all of them, and leave little between them (benchmarks/modes.py).
            optimizer = Optimizer(lr=5e-3, betas=(0.0, 0.99), decay="linear", final=0.01)
            config = cls.Config(
                latent_dim=min(64, max(2, math.prod(spec.shape))),
                hidden=(128, 128, 128),
                generator_activation="relu",
                gamma=0.1,
                gamma_final=0.01,
                optimizer=optimizer,
                discriminator_optimizer=optimizer,
            )
            return Recipe(config=config, batch_size=256, budget=budget or Budget(steps=8000), ema=0.998)
        return vector_recipe(cls.Config, budget, latent_dim=max(8, min(64, math.prod(spec.shape))))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing where nothing bounds a critic."""
        return () if self.config.spectral_norm else self.rules.notes

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The discriminator, then the generator."""
        config = self.config
        phase = None if config.phase_epochs is None else Epochs(config.phase_epochs)
        generator, discriminator = (self.generator,), (self.discriminator,)
        if self.told is not None:
            generator, discriminator = (*generator, self.embedding), (*discriminator, self.told)
        return (
            Player(
                "discriminator",
                self.discriminator_loss,
                discriminator,
                config.discriminator_optimizer,
                steps=phase or config.discriminator_steps,
            ),
            Player("generator", self.generator_loss, generator, config.optimizer, steps=phase or config.generator_steps),
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` and `fake` (or `paired`) in the unit of the loss, and the penalties; an auxiliary classifier has `label`
        of the real examples and `fake_label` of as many generated ones. In training mode it also takes in the labels."""
        label = labels.shown(self.condition, batch.label, training=self.training)
        with torch.no_grad():
            fake = self._fake(len(batch.x), label)
        # Logits are asked for once for the real and once for as many generated examples, under the same labels.
        logit, outputs = self._listening(label)
        loss = discriminator_loss(logit, batch.x, fake, self.rules, augmentation=self.augmentation)
        return self._naming(loss, {"label": outputs[0], "fake_label": outputs[1]}, label)

    def generator_loss(self, batch: Batch) -> Loss:
        """The term `adversarial`, in the unit of the loss, and `label` with an auxiliary classifier. Of the batch only its size and
        its labels are used, unless pairs are judged."""
        label = labels.shown(self.condition, batch.label, training=self.training, learn=False)
        logit, outputs = self._listening(label)
        with resting(self.discriminator):
            fake = self._fake(len(batch.x), label)
            paid, logits = generator_loss(logit, batch.x, fake, self.rules, augmentation=self.augmentation)
        loss = Loss({"adversarial": paid}, metrics={"fake_logit": logits.detach().mean()})
        return self._naming(loss, {"label": outputs[0]}, label)

    @property
    def rules(self) -> Rules:
        """The rules at this moment: penalties fade."""
        rules = Rules(**{field.name: getattr(self.config, field.name) for field in dataclasses.fields(Rules)})
        left = self.config.gamma_final ** float(self.progress)
        return dataclasses.replace(rules, gamma=left * rules.gamma, gamma_fake=left * rules.gamma_fake)

    def _listening(self, label: Tensor | None) -> tuple[Callable[[Tensor], Float[Tensor, " batch"]], list[Tensor]]:
        """D(x) under these labels, and what else the discriminator says of each batch that it is asked about, in that order."""
        outputs: list[Tensor] = []

        def logit(x: Tensor) -> Tensor:
            outputs.append(self._judged(x, label))
            return self._logit(outputs[-1], label)

        return logit, outputs

    def _naming(self, loss: Loss, outputs: Mapping[str, Tensor], label: Tensor | None) -> Loss:
        """The loss with a term for each output whose label an auxiliary classifier names, and how well it names the first."""
        if self.told is None or self.config.conditioning != "auxiliary_classifier":
            return loss
        named = {name: self.told.naming(output, label) for name, output in outputs.items()}
        return Loss(
            {**loss.terms, **{name: nats for name, (nats, _) in named.items()}},
            {**loss.weights, **dict.fromkeys(named, self.config.auxiliary)},
            {**loss.metrics, "agreement": named["label"][1]},
        )

    def _check(self, label: Tensor | None, n: int, *, missing: bool = True) -> None:
        labels.check(self.condition, label, n, "gan", missing=missing)

    def _output(self, z: Float[Tensor, "batch latent"], label: Tensor | None) -> Float[Tensor, "batch ..."]:
        if self.condition is not None:
            z = torch.cat((z, self.embedding(self.condition.vector(label, z))), 1)
        return self.generator(z)

    def _fake(self, n: int, label: Tensor | None) -> Float[Tensor, "batch ..."]:
        return relaxed(self.spec, self._output(torch.randn(n, self.config.latent_dim, device=self.device), label))

    def _judged(self, x: Float[Tensor, "batch ..."], label: Tensor | None) -> Float[Tensor, "batch outputs"]:
        """All that the discriminator says of x."""
        x = 2 * x - 1 if self.spec.kind == "images" else x
        if self.told is not None and self.condition is not None:
            x = self.told.join(x, self.condition.vector(label, x))
        return self.discriminator(x)

    def _logit(self, output: Float[Tensor, "batch outputs"], label: Tensor | None) -> Float[Tensor, " batch"]:
        if self.told is None or self.condition is None:
            return output[:, 0]
        return self.told.logit(output, self.condition.vector(label, output))

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: neither player's loss says how good the samples are."""
        return None

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Classifies where there is a head for classes."""
        return super().capabilities - (set() if self._names_classes else {Classifies})

    @property
    def _names_classes(self) -> bool:
        return self.config.conditioning == "auxiliary_classifier" and isinstance(self.spec.label, Classes)

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """G(z); in tables the likeliest category. A conditional model without one uses the null label."""
        self._check(label, len(z))
        return self.observation.mean(self._output(z, label))

    def sample(
        self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0, truncation: float | None = None
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples under the labels `label`, or under labels drawn from the training marginal.

        Arguments:
            temperature: multiplies the noise.
            truncation: the noise is drawn within +- this (before `temperature`): below 2 samples become more
                typical and more alike.
        Raises `UsageError` for labels that are not n whole ones of the kind that the training data have.
        """
        self._check(label, n, missing=False)
        if self.condition is not None and label is None:
            label = self.condition.draw(noise)
        z = self.code_prior.truncated(noise, truncation, temperature=temperature, fitted=self.fitted)
        return self.observation.draw(self._output(z, label), noise)

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x), higher for real: the log-odds of real against generated under the losses in nats, known up to a constant where the
        loss is wasserstein or of pairs; a conditional model without a label uses the null label."""
        self._check(label, len(x))
        return self._logit(self._judged(x, label), label)

    def classify(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Class logits of the auxiliary classifier. Raises `UsageError` where there is none, or none of classes."""
        if not self._names_classes:
            raise UsageError("this gan names no classes: train it with --model.conditioning auxiliary_classifier on data with classes")
        return self._judged(x, None)[:, 1:]
