"""The progressively growing GAN: both networks begin with images of a few pixels, and take in one size after the other.

    stage, alpha = schedule(progress)
    x_s = alpha x|_s + (1 - alpha) enlarged x|_(s-1),    x|_s the means of blocks of pixels

    discriminator: minimise  E softplus(-D(x_s)) + E softplus(D(G(z))) + gamma_s/2 E ||grad_x D(x_s)||^2
    generator:     minimise  E softplus(-D(G(z)))

What is large and coarse is learned first, where moves are cheap; each new size is faded in, so that what was learned is not upset.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent

from pofx import core, losses
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Decodes,
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
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss, image_recipe, resting
from pofx.nn.augmentation import Augmentation, Augmented
from pofx.nn.growing import GrowingDiscriminator, GrowingGenerator, enlarge, halve, sizes
from pofx.nn.priors import StandardNormal
from pofx.nn.relaxation import squashed


class ProgressiveGAN(Model, Samples, Decodes, Judges):
    """A game that grows with `progress`; samples have the full size at every stage, coarse pixels repeated.

    Layers of sizes that are yet to come take no part: they have no gradients and no optimizer state, and their averages are what they
    started with. The weight of the penalty is in proportion to the pixels of a stage, since the gradient by one coarse pixel is the sum
    of those by the fine ones within it.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018),
        https://arxiv.org/abs/1710.10196
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
    """

    kinds = frozenset({"images"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Augmented):
        """Configuration of the progressively growing GAN."""

        latent_dim: core.Positive = 128
        """Length of the noise vector."""
        channels: core.Positive = 32
        """Channels of the generator at the full size, doubling with each halving, up to 256; the discriminator has as many."""
        stable: tuple[core.PositiveFloat, ...] = ()
        """Shares of the budget, in any unit, for which each size stands, the coarsest first. Empty: 1 each, the last one as many as there
        are sizes."""
        fade: tuple[core.PositiveFloat, ...] = ()
        """Shares of the budget, in the same unit, for which each size but the coarsest is faded in. Empty: 1 each."""
        loss: losses.AdversarialName = "non_saturating"
        """What logits cost: non_saturating, minimax, least_squares, hinge, wasserstein (the paper's, with wgan-gp 10 and gamma 0)."""
        relativistic: bool = False
        """Whether the loss is of D(x) - D(G(z)), a real and a generated example at a time, instead of each logit alone."""
        gamma: core.NonNegative = 0.3
        """Weight of the R1 penalty at the full size, 1/2 E ||grad_x D(x)||^2."""
        wgan_gp: core.NonNegative = 0.0
        """Weight of the WGAN-GP penalty, E (||grad D|| - 1)^2 between real and generated examples."""
        minibatch_std: Annotated[int, core.Range(0)] = 4
        """Examples in a group whose standard deviation the discriminator sees; 0: it judges each example alone."""
        optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=1e-3, betas=(0.0, 0.99)))
        """How the generator's weights move."""
        discriminator_optimizer: Optimizer = dataclasses.field(default_factory=lambda: Optimizer(lr=1e-3, betas=(0.0, 0.99)))
        """How the discriminator's weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sizes = sizes(spec.shape)
        self.schedule = Schedule.of(config.stable, config.fade, self.sizes)
        self.augmentation = Augmentation(spec, config.augment, config.augment_strength)
        self.code_prior = StandardNormal(config.latent_dim)
        self.generator = GrowingGenerator(config.latent_dim, spec.shape, channels=config.channels)
        self.discriminator = GrowingDiscriminator(spec.shape, channels=config.channels, minibatch_std=config.minibatch_std)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """That of a game over images, with steps that suit equalised layers."""
        optimizer = Optimizer(lr=2e-3, betas=(0.0, 0.99), decay="linear", decay_start=0.8, final=0.1)
        channels = 16 if min(spec.shape[1:]) > 64 else 32
        return image_recipe(cls.Config, spec, budget, channels=channels, optimizer=optimizer, discriminator_optimizer=optimizer)

    # ------------------------------------------------------------------------------------------------------ the game

    @property
    def stage(self) -> tuple[int, float]:
        """The stage and its alpha at this point of the budget."""
        return self.schedule.at(float(self.progress))

    @property
    def rules(self) -> Rules:
        """The rules at this stage."""
        config, size = self.config, self.sizes[self.stage[0]]
        share = math.prod(size) / math.prod(self.sizes[-1])
        return Rules(loss=config.loss, relativistic=config.relativistic, gamma=config.gamma * share, wgan_gp=config.wgan_gp)

    @property
    def milestones(self) -> dict[str, float]:
        """The end of each size that another one grows from: later its own layer is no longer trained, and those below it are."""
        ends = self.schedule.ends[:-1:2]
        return {f"{height} x {width}": end for (height, width), end in zip(self.sizes[:-1], ends, strict=True)}

    def players(self) -> tuple[Player, ...]:
        """The discriminator, then the generator."""
        config = self.config
        return (
            Player("discriminator", self.discriminator_loss, (self.discriminator,), config.discriminator_optimizer),
            Player("generator", self.generator_loss, (self.generator,), config.optimizer),
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        """The terms `real` and `fake` (or `paired`) in the unit of the loss, and the penalties; the metrics `stage` and `alpha`."""
        with torch.no_grad():
            fake = self._images(torch.randn(len(batch.x), self.config.latent_dim, device=self.device))
        loss = discriminator_loss(self._logit, self.coarse(batch.x), fake, self.rules, augmentation=self.augmentation)
        stage, alpha = (torch.tensor(float(value)) for value in self.stage)
        return Loss(loss.terms, loss.weights, {**loss.metrics, "stage": stage, "alpha": alpha})

    def generator_loss(self, batch: Batch) -> Loss:
        """The term `adversarial`, in the unit of the loss."""
        fake = self._images(torch.randn(len(batch.x), self.config.latent_dim, device=self.device))
        with resting(self.discriminator):
            paid, logits = generator_loss(self._logit, self.coarse(batch.x), fake, self.rules, augmentation=self.augmentation)
        return Loss({"adversarial": paid}, metrics={"fake_logit": logits.detach().mean()})

    def coarse(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels new_height new_width"]:
        """Images at the size of this stage, faded over those of the stage before."""
        stage, alpha = self.stage
        for _ in range(len(self.sizes) - 1 - stage):
            x = halve(x)
        return x if alpha == 1 else torch.lerp(enlarge(halve(x), self.sizes[stage]), x, alpha)

    def _images(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels new_height new_width"]:
        """Images in [0, 1] at the size of this stage, as far as it is faded in."""
        return squashed(self.generator(z, *self.stage))

    def _whole(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels new_height new_width"]:
        """Images of a stage at the full size, through all sizes between, so that halving them leads back."""
        for size in self.sizes[self.sizes.index((x.shape[2], x.shape[3])) + 1 :]:
            x = enlarge(x, size)
        return x

    def _logit(self, x: Float[Tensor, "batch channels new_height new_width"]) -> Float[Tensor, " batch"]:
        return self.discriminator(2 * x - 1, *self.stage)[:, 0]

    # -------------------------------------------------------------------------------------------------- capabilities

    @property
    def validation(self) -> str | None:
        """None: neither player's loss says how good the samples are."""
        return None

    def prior(self) -> Independent:
        """N(0, I)."""
        return self.code_prior.distribution()

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """G(z) at the full size. Raises `UsageError` for a label, as all of these do: the model takes none."""
        labels.refuse(label, "a progressive_gan")
        return self._whole(self._images(z))

    def sample(
        self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0, truncation: float | None = None
    ) -> Float[Tensor, "n ..."]:
        """n new images at the full size.

        Arguments:
            temperature: multiplies the noise.
            truncation: the noise is drawn within +- this (before `temperature`): below 2 samples become more
                typical and more alike.
        """
        labels.refuse(label, "a progressive_gan")
        z = self.code_prior.truncated(noise, truncation, temperature=temperature, fitted=self.fitted)
        return self._whole(self._images(z))

    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """D(x) at the size of this stage, higher for real."""
        labels.refuse(label, "a progressive_gan")
        return self._logit(self.coarse(x))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When which size is learned: ends of the phases in shares of the budget, of size 0, growth to 1, size 1, growth to 2, ...

    Attributes:
        ends: in [0, 1], rising; the last is 1.
    """

    ends: tuple[float, ...]

    @classmethod
    def of(cls, stable: Sequence[float], fade: Sequence[float], sizes: Sequence[tuple[int, int]]) -> "Schedule":
        """Raises `UsageError` where there is not one `stable` for each size and one `fade` for each growth."""
        stable = stable or (*(1.0,) * (len(sizes) - 1), float(len(sizes)))
        fade = fade or (1.0,) * (len(sizes) - 1)
        if len(stable) != len(sizes) or len(fade) != len(sizes) - 1:
            shown = ", ".join(f"{height} x {width}" for height, width in sizes)
            raise UsageError(
                f"these images grow through {len(sizes)} sizes ({shown}): give stable one number for each and fade one for each but the "
                f"coarsest, not {len(stable)} and {len(fade)}"
            )
        phases = [stable[0], *(length for pair in zip(fade, stable[1:], strict=True) for length in pair)]
        whole, done, ends = sum(phases), 0.0, []
        for length in phases:
            done += length
            ends.append(done / whole)
        return cls((*ends[:-1], 1.0))

    def at(self, progress: float) -> tuple[int, float]:
        """The stage, and how far it is faded in: alpha in (0, 1]; 1 where it stands."""
        phase = next((i for i, end in enumerate(self.ends) if progress < end), len(self.ends) - 1)
        if phase % 2 == 0:
            return phase // 2, 1.0
        start, end = self.ends[phase - 1], self.ends[phase]
        return (phase + 1) // 2, (progress - start) / (end - start)
