"""InfoGAN: a generative adversarial network whose generator must let a part of its noise, the codes, be read off what it makes.

    discriminator: minimise  E softplus(-D(x)) + E softplus(D(G(c, n))) + gamma/2 E ||grad_x D(x)||^2 - lambda L(G, Q)
    generator:     minimise  E softplus(-D(G(c, n)))                                              - lambda L(G, Q)
    L(G, Q) = H(c) + E log Q(c|G(c, n)) <= I(c; G(c, n))

Q reads the codes from the features of the discriminator; its head belongs to both players, who both raise the bound. Codes are
categorical and continuous, and find classes and traits of the data that nobody named.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Judges, Loss, Model, Noise, Optimizer, Player, Recipe, Samples, UsageError
from pofx.nn import labels
from pofx.nn.adversarial import Rules, discriminator_loss, image_recipe, vector_recipe
from pofx.nn.augmentation import Augmentation, Augmented
from pofx.nn.codes import Codes
from pofx.nn.conv import ConvDecoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import relaxed
from pofx.nn.trunk import trunk

SETTLED = 0.2
"""Share of the budget after which codes should be told from samples."""
IGNORED = 0.1
"""Share of the entropy of the categorical codes below which these are ignored."""
WATCHED = 256
"""Samples whose codes are read for that."""


class InfoGAN(Model, Samples, Encodes, Decodes, Judges):
    """A generator of codes and noise, a discriminator, and a head on its features that reads the codes.

    A code is a row of the categories, one-hot, and of continuous numbers, uniform in [-1, 1]; `encode` gives the probabilities of
    the categories and the means of the numbers, `decode` what becomes of a code at the centre of the noise. The terms `information`
    and `continuous_information` are L(G, Q) of both kinds in nats per example, with negative weights.

    References:
        InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets (Chen et al., 2016),
        https://arxiv.org/abs/1606.03657
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
    """

    kinds = frozenset({"images", "vectors"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Augmented):
        """Configuration of InfoGAN."""

        categories: tuple[core.Positive, ...] = (10,)
        """How many values each categorical code has; none: continuous codes only."""
        continuous: core.Natural = 2
        """How many continuous codes there are."""
        latent_dim: core.Positive = 62
        """Length of the noise beside the codes."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense discriminator, outermost first; the generator mirrors them."""
        channels: core.Positive = 32
        """Channels of the generator at the full size of an image (conv), doubling with each halving; the discriminator
        has twice as many."""
        dense_units: core.Natural = 256
        """Units of the dense layer after the discriminator's convolutions and before the generator's (conv); 0: none."""
        reader: tuple[core.Positive, ...] = (128,)
        """Widths of the hidden layers of the head that reads the codes from the discriminator's features."""
        information: core.PositiveFloat = 1.0
        """Weight of the information about the categorical codes (lambda)."""
        continuous_information: core.PositiveFloat = 0.1
        """Weight of that about the continuous ones, of which a generator can tell any number of nats: as much of them as of categories
        and it does nothing else."""
        gamma: core.NonNegative = 0.3
        """Weight of the R1 penalty, 1/2 E ||grad_x D(x)||^2."""
        optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the generator's weights move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the discriminator's weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.continuous and not any(count > 1 for count in self.categories):
                raise UsageError("an infogan needs codes: give --model.categories of two values or more, or --model.continuous above 0")
            if self.architecture == "dense" and not self.hidden:
                raise UsageError("hidden needs at least one layer: the codes are read from the discriminator's last one")

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        self.augmentation = Augmentation(spec, config.augment, config.augment_strength)
        self.observation = Observation(spec, "squared_error")
        self.codes = Codes(config.categories, config.continuous)
        self.noise_prior = StandardNormal(config.latent_dim)
        width = self.codes.width + config.latent_dim
        self.generator: nn.Module
        if config.architecture == "dense":
            self.generator = MLP(width, spec.shape, config.hidden[::-1], activation="leaky_relu")
        else:
            self.generator = ConvDecoder(width, spec.shape, channels=config.channels, activation="leaky_relu", dense=config.dense_units)
        self.features, length = trunk(
            spec.shape, config.architecture, hidden=config.hidden, channels=2 * config.channels, units=config.dense_units
        )
        self.head = MLP(length, 1)
        self.reader = MLP(length, self.codes.outputs, config.reader, activation="leaky_relu")

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images and small dense networks for anything else."""
        if spec.kind == "images":
            return image_recipe(cls.Config, spec, budget, architecture="conv")
        return vector_recipe(cls.Config, budget, latent_dim=max(4, min(62, math.prod(spec.shape))))

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The discriminator, then the generator; the head that reads the codes belongs to both."""
        config = self.config
        return (
            Player(
                "discriminator", self.discriminator_loss, (self.features, self.head, self.reader), config.discriminator_optimizer
            ),
            Player("generator", self.generator_loss, (self.generator, self.reader), config.optimizer),
        )  # fmt: skip

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real`, `fake` and those of the information in nats, and `penalty`."""
        n = len(batch.x)
        with torch.no_grad():
            code = self.codes.random(n, self.device)
            fake = self._fake(code)
        seen = []

        def logit(x: Tensor) -> Tensor:
            seen.append(self._features(x))
            return self.head(seen[-1])[:, 0]

        # Logits are asked for once for the real and once for the generated examples.
        loss = discriminator_loss(logit, batch.x, fake, Rules(gamma=self.config.gamma), augmentation=self.augmentation)
        return self._informed(loss, seen[1], code)

    def generator_loss(self, batch: Batch) -> Loss:
        """The terms `adversarial`, non-saturating, and those of the information, in nats. Of the batch only its size is used."""
        code = self.codes.random(len(batch.x), self.device)
        features = self._features(self.augmentation(self._fake(code)))
        logits = self.head(features)[:, 0]
        loss = Loss({"adversarial": losses.NON_SATURATING.of_generator(logits)}, metrics={"fake_logit": logits.detach().mean()})
        return self._informed(loss, features, code)

    def _informed(self, loss: Loss, features: Tensor, code: Tensor) -> Loss:
        """The loss less the weighted bounds on the information, which are to rise."""
        nats = self.codes.information(self.reader(features), code).mean(0).split([len(self.codes.categories), self.codes.continuous])
        weights = {"information": self.config.information, "continuous_information": self.config.continuous_information}
        parts = [(name, part.sum(), weight) for (name, weight), part in zip(weights.items(), nats, strict=True) if len(part)]
        return Loss(
            {**loss.terms, **{name: told for name, told, _ in parts}},
            {**loss.weights, **{name: -weight for name, _, weight in parts}},
            loss.metrics,
        )

    def _fake(self, code: Float[Tensor, "batch codes"]) -> Float[Tensor, "batch ..."]:
        return relaxed(self.spec, self._output(code, torch.randn(len(code), self.config.latent_dim, device=code.device)))

    def _features(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        return self.features(2 * x - 1 if self.spec.kind == "images" else x)

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: no player's loss says how good the samples are."""
        return None

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Codes that cannot be read off samples, or of which all held-out examples have the same, once there was time to learn."""
        if float(self.progress) < SETTLED:
            return {}
        noise = Noise(0, WATCHED, device=self.device)
        code = self.codes.draw(noise)
        x = self.observation.draw(self._output(code, noise.normal(self.config.latent_dim)), noise)
        nats = self.codes.information(self.reader(self._features(x)), code).mean(0).tolist()
        entropy = self.codes.entropy
        ignored = [name for name, told, all_of_it in zip(self.codes.names, nats, entropy, strict=True) if told < IGNORED * all_of_it]
        if ignored:
            flag = "" if self.codes.counts[self.codes.names.index(ignored[0])] else "continuous-"
            return {
                "ignored codes": f"{', '.join(ignored)} of {len(nats)} codes cannot be read off samples ({sum(nats):.2g} nats of the "
                f"{sum(entropy):.2g} or more that all codes have), so that the generator does without: raise --model.{flag}information, train "
                "longer, or take fewer codes"
            }
        shares = [part.mean(0) for part in self.codes.categorical(self.encode(batch.x))]
        if idle := [i for i, share in enumerate(shares) if len(batch.x) > 1 and float(share.max()) > 1 - IGNORED / 2]:
            return {
                "idle codes": f"nearly all held-out examples have one value of {', '.join(f'c{i}' for i in idle)}, so that the other values "
                "are no kinds of the data: train longer, or take fewer categories"
            }
        return {}

    def prior(self) -> Distribution:
        """The distribution of the codes, without the noise."""
        return self.codes.distribution(self.device)

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """Q(c|x): the probabilities of each category and the means of the continuous codes. Raises `UsageError` for a label, as all
        of these do: the model takes none."""
        labels.refuse(label, "an infogan")
        return self.codes.point(self.reader(self._features(x)))

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """What the generator makes of codes at the centre of the noise; in tables the likeliest category."""
        labels.refuse(label, "an infogan")
        return self.observation.mean(self._output(z, torch.zeros(len(z), self.config.latent_dim, device=z.device)))

    def _output(self, code: Float[Tensor, "batch codes"], noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch ..."]:
        return self.generator(torch.cat((code, noise), 1))

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        truncation: float | None = None,
        code: Mapping[str, float] | None = None,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples; codes of a prior that was fitted later are decoded at the centre of the noise.

        Arguments:
            truncation: the noise, not the codes, is drawn within +- this.
            code: values of some codes by their names, c0, c1, ...; the others are drawn.
        Raises `UsageError` for a code or a value that is none, and for codes of a fitted prior.
        """
        labels.refuse(label, "an infogan")
        if self.fitted is not None:
            if code:
                raise UsageError("codes are drawn from a prior that was fitted to them: leave --code out, or give --prior own")
            z = self.noise_prior.truncated(noise, truncation, fitted=self.fitted)
            return self.observation.draw(self._output(z, torch.zeros(n, self.config.latent_dim, device=z.device)), noise)
        drawn = self.codes.fixed(self.codes.draw(noise), code or {})
        return self.observation.draw(self._output(drawn, self.noise_prior.truncated(noise, truncation)), noise)

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x): the log-odds of real against generated."""
        labels.refuse(label, "an infogan")
        return self.head(self._features(x))[:, 0]
