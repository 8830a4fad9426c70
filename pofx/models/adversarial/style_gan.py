"""The style-based GAN: codes become styles, which say how each layer of the generator weighs its features.

    w = f(z),    x = g(w_1, ..., w_L; noise)

    discriminator: minimise  E softplus(-D(x)) + E softplus(D(G(z))) + gamma/2 E ||grad_x D(x)||^2
    generator:     minimise  E softplus(-D(G(z))) + lambda E (||J_w^T y|| - a)^2,    y ~ N(0, I), a the running mean of the norm

What a whole picture has in common is in the styles of coarse layers, what is fine in those of the last ones, and what is left to
chance in the noise of each layer: two codes can be mixed, one for the coarse layers and one for the fine.
"""

import dataclasses
import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent

from pofx import core, losses
from pofx.convolution import twice_differentiable
from pofx.core import Batch, Budget, DataSpec, Decodes, Judges, Loss, Model, Noise, Optimizer, Player, Recipe, Samples
from pofx.nn import labels
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss, image_recipe, resting
from pofx.nn.augmentation import Augmentation, Augmented
from pofx.nn.conv import ConvEncoder
from pofx.nn.minibatch import RunningMean
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import squashed
from pofx.nn.style import Mapping, StyleGenerator

MEASURED = 4
"""One example in so many has its path length measured."""


class StyleGAN(Model, Samples, Decodes, Judges):
    """A small StyleGAN2: a mapping network, modulated convolutions, noise, style mixing, a penalty on path lengths.

    A code is z; `decode` takes the same noise for each. The mean style, to which truncation pulls, is a running one.

    References:
        A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), https://arxiv.org/abs/1812.04948
        Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
        Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), https://arxiv.org/abs/2006.06676
    """

    kinds = frozenset({"images"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Augmented):
        """Configuration of the style-based GAN."""

        latent_dim: core.Positive = 64
        """Length of the noise vector and of a style."""
        depth: core.Positive = 4
        """Layers of the mapping network."""
        channels: core.Positive = 32
        """Channels of the generator at the full size, doubling with each halving, up to 256; the discriminator has twice as many at
        half of it."""
        mixing: core.Fraction = 0.5
        """Share of the generated examples whose fine layers have the style of another code."""
        path_length: core.NonNegative = 0.5
        """Weight of the penalty on path lengths (lambda), relative to the size of the image; 0: none."""
        loss: losses.AdversarialName = "non_saturating"
        """What logits cost: non_saturating, minimax, least_squares, hinge, wasserstein."""
        relativistic: bool = False
        """Whether the loss is of D(x) - D(G(z)), a real and a generated example at a time, instead of each logit alone."""
        gamma: core.NonNegative = 0.3
        """Weight of the R1 penalty, 1/2 E ||grad_x D(x)||^2."""
        minibatch_std: Annotated[int, core.Range(0)] = 4
        """Examples in a group whose standard deviation the discriminator sees; 0: it judges each example alone."""
        dense_units: core.Natural = 256
        """Units of the dense layer after the discriminator's convolutions; 0: none."""
        optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=2e-3, betas=(0.0, 0.99)))
        """How the generator's weights move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=2e-3, betas=(0.0, 0.99)))
        """How the discriminator's weights move."""

    #: Shown by the figure of truncations: shares of the way from the mean style.
    truncations: ClassVar = (None, 0.85, 0.7, 0.5, 0.3, 0.0)

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        latent = config.latent_dim
        self.augmentation = Augmentation(spec, config.augment, config.augment_strength)
        self.code_prior = StandardNormal(latent)
        self.mapping = Mapping(latent, latent, config.depth)
        self.generator = StyleGenerator(latent, spec.shape, channels=config.channels)
        self.discriminator = ConvEncoder(
            spec.shape,
            1,
            channels=2 * config.channels,
            activation="leaky_relu",
            blocks=1,
            minibatch_std=config.minibatch_std,
            dense=config.dense_units,
        )
        self.length = RunningMean(kept=False)
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("still", torch.randn(1, self.generator.numbers))

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """That of a game over images."""
        return image_recipe(cls.Config, spec, budget, channels=16 if min(spec.shape[1:]) > 64 else 32)

    # ------------------------------------------------------------------------------------------------------ the game

    @property
    def rules(self) -> Rules:
        """Of the game."""
        return Rules(loss=self.config.loss, relativistic=self.config.relativistic, gamma=self.config.gamma)

    def players(self) -> tuple[Player, ...]:
        """The discriminator, then the generator with its mapping network."""
        config = self.config
        return (
            Player("discriminator", self.discriminator_loss, (self.discriminator,), config.discriminator_optimizer),
            Player("generator", self.generator_loss, (self.generator, self.mapping), config.optimizer),
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` and `fake` (or `paired`) in the unit of the loss, and `penalty`."""
        with torch.no_grad():
            fake = self._images(self._styles(len(batch.x)))
        return discriminator_loss(self._logit, batch.x, fake, self.rules, augmentation=self.augmentation)

    def generator_loss(self, batch: Batch) -> Loss:
        """The term `adversarial`, in the unit of the loss, and `path_length` where it has a weight; in training mode the mean style
        and the mean path length are taken in."""
        w = self._styles(len(batch.x))
        if self.training:
            with torch.no_grad():
                self.centre.lerp_(w.flatten(0, 1).mean(0), 0.005)
        fake = self._images(w)
        with resting(self.discriminator):
            paid, logits = generator_loss(self._logit, batch.x, fake, self.rules, augmentation=self.augmentation)
        terms = {"adversarial": paid}
        if self.config.path_length:
            terms["path_length"] = self._path_length(w[: -(-len(w) // MEASURED)])
        return Loss(terms, {"path_length": self.config.path_length}, {"fake_logit": logits.detach().mean()})

    def _path_length(self, w: Float[Tensor, "batch layers style"]) -> Float[Tensor, ""]:
        """E (||J_w^T y|| - a)^2 over a^2, J the Jacobian of the image by all styles."""
        with torch.enable_grad(), twice_differentiable():  # also for whoever asks for the loss alone
            w = w if w.requires_grad else w.detach().requires_grad_()
            image = self._images(w)
            y = torch.randn_like(image) / math.sqrt(image[0, 0].numel())
            (slope,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
        length = slope.square().sum(2).mean(1).sqrt()
        usual = self.length(length).clamp(min=1e-3)
        return ((length - usual) / usual).square().mean()

    def _styles(self, n: int) -> Float[Tensor, "n layers style"]:
        """Of random codes, some of which change at a random layer."""
        z = torch.randn(2, n, self.config.latent_dim, device=self.device)
        first, other = self.mapping(z.flatten(0, 1)).unflatten(0, (2, n))
        layers = self.generator.layers
        crossing = torch.randint(1, max(2, layers), (n, 1), device=self.device)
        mixed = torch.rand(n, 1, device=self.device) < self.config.mixing
        fine = mixed & (torch.arange(layers, device=self.device) >= crossing)
        return torch.where(fine[:, :, None], other[:, None], first[:, None])

    def _images(self, w: Float[Tensor, "n layers style"], noise: Float[Tensor, "n numbers"] | None = None) -> Float[Tensor, "n ..."]:
        """Images in [0, 1]; their noise by the global generator if none is given."""
        if noise is None:
            noise = torch.randn(len(w), self.generator.numbers, device=w.device)
        return squashed(self.generator(w, noise))

    def _logit(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        return self.discriminator(2 * x - 1)[:, 0]

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: neither player's loss says how good the samples are."""
        return None

    def prior(self) -> Independent:
        """N(0, I), of codes z."""
        return self.code_prior.distribution()

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """G(z), each with the same noise. Raises `UsageError` for a label, as all of these do: the model takes none."""
        labels.refuse(label, "a style_gan")
        return self._same(self.mapping(z)[:, None].expand(-1, self.generator.layers, -1))

    def _same(self, w: Float[Tensor, "n layers style"]) -> Float[Tensor, "n ..."]:
        return self._images(w, self.still.expand(len(w), -1))

    def mix(self, coarse: Float[Tensor, "n latent"], fine: Float[Tensor, "n latent"], *, share: float = 0.5) -> Float[Tensor, "n ..."]:
        """Images with the styles of the codes `coarse` in the first layers, a `share` of all, and those of `fine` in the others."""
        layers = self.generator.layers
        first = torch.arange(layers, device=coarse.device) < share * layers
        return self._same(torch.where(first[:, None], self.mapping(coarse)[:, None], self.mapping(fine)[:, None]))

    def sample(
        self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0, truncation: float | None = None
    ) -> Float[Tensor, "n ..."]:
        """n new images.

        Arguments:
            temperature: multiplies the code.
            truncation: in [0, 1], how far a style stays from the mean one, in its own distance: below 1 samples become more typical
                and more alike.
        Raises `UsageError` for a truncation out of bounds.
        """
        labels.refuse(label, "a style_gan")
        core.Range(0, 1).check("truncation", 1.0 if truncation is None else truncation)
        w = self.mapping((self.fitted or self.code_prior).draw(noise, temperature=temperature))
        if truncation is not None:
            w = torch.lerp(self.centre, w, truncation)
        return self._images(w[:, None].expand(-1, self.generator.layers, -1), noise.normal(self.generator.numbers))

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x), higher for real."""
        labels.refuse(label, "a style_gan")
        return self._logit(x)
