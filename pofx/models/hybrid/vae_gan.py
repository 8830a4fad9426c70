"""The VAE-GAN: a variational autoencoder that is measured by what a discriminator sees instead of by pixels.

    encoder:       minimise  distance + beta KL(q(z|x) || N(0, I)) - a E log P(label|z)
    decoder:       minimise  distance + E softplus(-D(fake))
    discriminator: minimise  E softplus(-D(x)) + E softplus(D(fake)) + gamma/2 E ||grad_x D(x)||^2

    distance = E v/2 ||f(x) - f(G(z))||^2 + w/2 ||x - G(z)||^2,    z ~ q(z|x)

D = h(f(x)); f(x) are the features of its last hidden layer. Half of the fakes are reconstructions, half are G(z) of z
from the prior. Each player has a loss of its own, so that each gets the sign that is right for it. The heads that name
the label belong to the encoder's player: both want the same, to be told apart by their codes is what they pay for together.
The loss of the game, pairs of logits and further penalties are settings, as those of `gan`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

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
    Encodes,
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
from pofx.nn import collapse, labels
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss, image_recipe
from pofx.nn.augmentation import Augmentation, Augmented
from pofx.nn.conditioning import naming
from pofx.nn.conv import ConvDecoder, ConvEncoder
from pofx.nn.mlp import MLP
from pofx.nn.observation import Observation
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import relaxed
from pofx.nn.trunk import trunk

SETTLED = 0.2
"""Share of the budget after which codes should say something."""


class VAEGAN(Model, Samples, Encodes, Decodes, Classifies, Judges):
    """An encoder, a decoder and a discriminator; reconstructions are compared in the discriminator's features.

    The term `kl` is in nats per example, `features` and `reconstruction` are half squared errors per example, `label`, where
    `auxiliary` asks for it, is in nats per labelled example.

    On Fashion-MNIST, 9,910 rounds of the recipe (ten minutes of two cores) reached a Fréchet distance of 6.2 to 6.6 of 5,000
    samples to as many test images and a test error of 0.0079 a pixel; the recipe of `vae` in as long 18.3 to 20.0 and 0.0067.
    With 300 labels of `digits` and `auxiliary` 1, a dense encoder names 95.5 % of 179 test images after 300 rounds.

    References:
        Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016), https://arxiv.org/abs/1512.09300
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
    """

    kinds = frozenset({"images", "vectors"})
    conditions: ClassVar = {Classifies: "train on classes with --model.auxiliary 1"}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Augmented):
        """Configuration of the VAE-GAN."""

        latent_dim: core.Positive = 32
        """Length of the code."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense encoder and discriminator, outermost first; the decoder mirrors them."""
        channels: core.Positive = 32
        """Channels of the encoder after the first halving of an image (conv) and of the decoder at the full size; they
        double with each halving. The discriminator has twice as many."""
        beta: core.NonNegative = 1.0
        """Weight of the encoder's divergence between q(z|x) and the prior."""
        feature_weight: core.NonNegative = 1.0
        """Weight of the distance between features of x and of its reconstruction, for encoder and decoder (v)."""
        pixel_weight: core.NonNegative = 1.0
        """Weight of 1/2 ||x - reconstruction||^2, which keeps encoder and decoder together while the features are young (w);
        0: the features alone."""
        loss: losses.AdversarialName = "non_saturating"
        """What logits cost: non_saturating, minimax, least_squares, hinge, wasserstein."""
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
        auxiliary: core.NonNegative = 0.0
        """Weight of naming the label from the code, with a head for the classes, attributes or values of the data; rows without a
        label are left out of it. 0: no head."""
        optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the weights of the encoder and of the decoder move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)))
        """How the discriminator's weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        z, channels = config.latent_dim, config.channels
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        if config.architecture == "dense" and not config.hidden:
            raise UsageError("hidden needs at least one layer: the reconstruction is measured in the discriminator's last one")
        self.augmentation = Augmentation(spec, config.augment, config.augment_strength)
        self.observation = Observation(spec, "squared_error")
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "dense":
            self.encoder = MLP(spec.shape, 2 * z, config.hidden)
            self.decoder = MLP(z, spec.shape, config.hidden[::-1], activation="leaky_relu")
        else:
            self.encoder = ConvEncoder(spec.shape, 2 * z, channels=channels)
            self.decoder = ConvDecoder(z, spec.shape, channels=channels, activation="leaky_relu")
        self.features, length = trunk(spec.shape, config.architecture, hidden=config.hidden, channels=2 * channels)
        self.head = MLP(length, 1)
        self.label_head: MLP | None = None
        if config.auxiliary:
            if spec.label is None:
                raise UsageError(
                    "an auxiliary head needs data with labels, and these have none: name their column with --data.label, or leave "
                    "--model.auxiliary out"
                )
            self.label_head = MLP(z, len(spec.label.names))
        self.code_prior = StandardNormal(config.latent_dim)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images and small dense networks for anything else; some thousands of moves of each player."""
        if spec.kind == "images":
            return image_recipe(cls.Config, spec, budget, architecture="conv", beta=0.05, feature_weight=0.1)
        latent_dim = max(2, min(16, math.prod(spec.shape)))
        config = cls.Config(latent_dim=latent_dim, beta=0.1)
        return Recipe(config=config, batch_size=256, budget=budget or Budget(steps=6000), ema=0.998)

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The encoder (with the head of the label, where there is one), the decoder, the discriminator."""
        config = self.config
        encoder = (self.encoder,) if self.label_head is None else (self.encoder, self.label_head)
        return (
            Player("encoder", self.encoder_loss, encoder, config.optimizer),
            Player("decoder", self.decoder_loss, (self.decoder,), config.optimizer),
            Player("discriminator", self.discriminator_loss, (self.features, self.head), config.discriminator_optimizer),
        )

    def posterior(self, x: Float[Tensor, "batch ..."]) -> tuple[Tensor, Tensor]:
        """mu and log_var of q(z|x), each (batch, latent)."""
        mu, log_var = self.encoder(self._centred(x)).chunk(2, 1)
        # An outlier must not overflow exp: a variance within e^+-20 is all that there is.
        return mu, log_var.clamp(-20, 20)

    def _centred(self, x: Tensor) -> Tensor:
        return 2 * x - 1 if self.spec.kind == "images" else x

    def _features(self, x: Tensor) -> Float[Tensor, "batch features"]:
        return self.features(self._centred(x))

    def _logit(self, x: Tensor) -> Float[Tensor, " batch"]:
        return self.head(self._features(x))[:, 0]

    def _decoded(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch ..."]:
        return relaxed(self.spec, self.decoder(z))

    def _distance(self, features: Tensor, fake: Tensor, x: Tensor) -> dict[str, Tensor]:
        """What encoder and decoder pay for a reconstruction `fake` of x with these `features`."""
        with torch.no_grad():
            target = self._features(x)
        return {"features": losses.squared_error(features, target).mean(), "reconstruction": losses.squared_error(fake, x).mean()}

    @property
    def _weights(self) -> dict[str, float]:
        return {"features": self.config.feature_weight, "reconstruction": self.config.pixel_weight}

    def encoder_loss(self, batch: Batch) -> Loss:
        """The terms `kl`, `features` and `reconstruction`; with a head the term `label`, in nats per labelled example, and the
        metric `accuracy`."""
        mu, log_var = self.posterior(batch.x)
        z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
        fake = self._decoded(z)
        terms = {"kl": losses.kl_to_standard_normal(mu, log_var).mean(), **self._distance(self._features(fake), fake, batch.x)}
        weights = {**self._weights, "kl": self.config.beta}
        if self.label_head is None:
            return Loss(terms, weights)
        assert self.spec.label is not None
        named = naming(self.spec.label, self.label_head(z), batch.label)
        return Loss({**terms, "label": named[0]}, {**weights, "label": self.config.auxiliary}, {"accuracy": named[1]})

    def decoder_loss(self, batch: Batch) -> Loss:
        """The terms `features`, `reconstruction` and `adversarial`, the last in the unit of the loss."""
        n = len(batch.x)
        codes = self._codes(batch.x, n)
        fake = self._decoded(codes)
        seen = []

        def logit(x: Tensor) -> Tensor:
            seen.append(self._features(x))
            return self.head(seen[-1])[:, 0]

        # Logits are asked for first for the fakes; where pairs are judged, each real example has two partners.
        paid, logits = generator_loss(logit, torch.cat((batch.x, batch.x)), fake, self.rules, augmentation=self.augmentation)
        # Reconstructions are compared as they are; what is judged may have been changed first.
        features = self._features(fake[:n]) if self.augmentation.changes else seen[0][:n]
        return Loss(
            {**self._distance(features, fake[:n], batch.x), "adversarial": paid},
            weights=self._weights,
            metrics={"fake_logit": logits.detach().mean()},
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` and `fake` (or `paired`) in the unit of the loss, and the penalties."""
        # As many fakes as real examples: half of the batch lends its codes, the others come from the prior.
        n = len(batch.x)
        with torch.no_grad():
            fake = self._decoded(self._codes(batch.x[: (n + 1) // 2], n // 2))
        return discriminator_loss(self._logit, batch.x, fake, self.rules, augmentation=self.augmentation)

    @property
    def rules(self) -> Rules:
        """Of the game between decoder and discriminator."""
        return Rules(**{field.name: getattr(self.config, field.name) for field in dataclasses.fields(Rules)})

    @torch.no_grad()
    def _codes(self, x: Tensor, n: int) -> Float[Tensor, "codes latent"]:
        """A code for each x from its posterior, then n from the prior."""
        mu, log_var = self.posterior(x)
        return torch.cat((mu + (0.5 * log_var).exp() * torch.randn_like(mu), torch.randn(n, mu.shape[1], device=mu.device)))

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: no player's loss says how good the samples are."""
        return None

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Classifies where there is a head for classes."""
        named = self.label_head is not None and isinstance(self.spec.label, Classes)
        return super().capabilities - (set() if named else {Classifies})

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Codes that say nothing about x, once there was time to learn some."""
        if float(self.progress) < SETTLED:
            return {}
        return collapse.collapsed(*self._codes_of(batch.x))

    def signs(self, batch: Batch) -> Mapping[str, float]:
        """Active units, and nats per dimension."""
        return collapse.signs(*self._codes_of(batch.x))

    def _codes_of(self, x: Tensor) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, " latent"]]:
        """Posterior means, and the mean divergence of each dimension."""
        mu, log_var = self.posterior(x)
        return mu, losses.kl_to_standard_normal(mu.reshape(-1, 1), log_var.reshape(-1, 1)).view_as(mu).mean(0)

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The posterior mean. Raises `UsageError` for a label, as all of these do: the model takes none."""
        labels.refuse(label, "a vae_gan")
        return self.posterior(x)[0]

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The decoder's output; in tables the likeliest category."""
        labels.refuse(label, "a vae_gan")
        return self.observation.mean(self.decoder(z))

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None) -> Shaped[Tensor, "n ..."]:
        """n new examples, decoded from codes of the prior, or of one that was fitted later."""
        labels.refuse(label, "a vae_gan")
        z = (self.fitted or self.code_prior).draw(noise)
        return self.observation.draw(self.decoder(z), noise)

    def classify(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Class logits of the posterior mean. Raises `UsageError` where there is no head for classes."""
        if self.label_head is None or not isinstance(self.spec.label, Classes):
            raise UsageError("this vae_gan has no head for classes: train it with --model.auxiliary 1 on data with classes")
        return self.label_head(self.posterior(x)[0])

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x): the log-odds of real against generated under the losses in nats, known up to a constant where the loss is wasserstein or
        of pairs."""
        labels.refuse(label, "a vae_gan")
        return self._logit(x)
