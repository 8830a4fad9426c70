"""Both sides of a game with a discriminator, the same whoever makes the fakes: its rules, and what its networks share."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from pofx import losses
from pofx.core import Budget, Config, DataSpec, Loss, Optimizer, Recipe
from pofx.nn.augmentation import Augmentation
from pofx.nn.conv import LARGE
from pofx.nn.minibatch import RunningMean

Logit = Callable[[Tensor], Float[Tensor, " batch"]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of a game: one loss, alone or on pairs, and the weights of any penalties (0: that penalty is not computed).

    Attributes:
        loss: a name in `losses.ADVERSARIAL`.
        relativistic: whether the loss is of D(x) - D(G(z)) instead of each logit alone.
        gamma: weight of R1, on real examples.
        gamma_fake: weight of R2, on generated ones.
        wgan_gp: weight of (||grad D|| - 1)^2 between real and generated examples.
        dragan: weight of the same around real examples.
    """

    loss: losses.AdversarialName = "non_saturating"
    relativistic: bool = False
    gamma: float = 0.0
    gamma_fake: float = 0.0
    wgan_gp: float = 0.0
    dragan: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what these rules leave open, told before training."""
        if not losses.ADVERSARIAL[self.loss].relative or any((self.gamma, self.gamma_fake, self.wgan_gp, self.dragan)):
            return ()
        return (
            f"nothing bounds the logits of a {self.loss} critic here, which then grow for ever: --model.wgan-gp 10, another penalty or "
            "--model.spectral-norm true, where this model has it, do",
        )


def discriminator_loss(
    logit: Logit, x: Float[Tensor, "batch ..."], fake: Float[Tensor, "fakes ..."], rules: Rules, *, augmentation: Augmentation | None = None
) -> Loss:
    """The terms `real` and `fake`, or `paired`, in the unit of the loss; the penalties that have a weight: `penalty` (R1),
    `fake_penalty` (R2), `wgan_gp`, `dragan`; the mean logits as metrics.

    Arguments:
        logit: from n examples to their n logits; it is asked once for `x`, once for `fake`, and once for the points of each
            other penalty.
        fake: as many as `x` where the rules pair them or take WGAN-GP, or where an adaptive augmentation follows a critic.
        augmentation: changes what is judged; an adaptive one takes in the logits of this move (where they are known up to a constant,
            of pairs), and the metric `augmentation` is its strength.
    """
    logit = _augmented(logit, augmentation)
    terms: dict[str, Tensor] = {}
    weights = {"penalty": rules.gamma, "fake_penalty": rules.gamma_fake, "wgan_gp": rules.wgan_gp, "dragan": rules.dragan}
    weights = {name: weight for name, weight in weights.items() if weight}

    def judged(x: Tensor, penalty: str) -> Tensor:
        """The logits of x; the pass of a penalty over the same examples serves the loss as well."""
        if penalty not in weights:
            return logit(x)
        logits = []

        def once(x: Tensor) -> Tensor:
            logits.append(logit(x))
            return logits[0]

        terms[penalty] = losses.zero_centred_penalty(once, x)
        return logits[0]

    # Cached: a normalised weight is computed once a move, and is the same for all examples.
    with parametrize.cached():
        on_real, on_fake = judged(x, "penalty"), judged(fake, "fake_penalty")
        if "wgan_gp" in weights:
            terms["wgan_gp"] = losses.one_centred_penalty(logit, losses.interpolates(x, fake))
        if "dragan" in weights:
            terms["dragan"] = losses.one_centred_penalty(logit, losses.perturbed(x))
    loss = losses.ADVERSARIAL[rules.loss]
    game = (
        {"paired": loss.of_real(losses.paired(on_real, on_fake))}
        if rules.relativistic
        else {"real": loss.of_real(on_real), "fake": loss.of_fake(on_fake)}
    )
    metrics = {"real_logit": on_real.detach().mean(), "fake_logit": on_fake.detach().mean()}
    if augmentation is not None and augmentation.changes:
        augmentation.adapt(losses.paired(on_real, on_fake) if rules.relativistic or loss.relative else on_real)
        metrics["augmentation"] = augmentation.strength.clone()
    return Loss({**game, **terms}, weights=weights, metrics=metrics)


def _augmented(logit: Logit, augmentation: Augmentation | None) -> Logit:
    return logit if augmentation is None or not augmentation.changes else lambda x: logit(augmentation(x))


def generator_loss(
    logit: Logit, x: Float[Tensor, "batch ..."], fake: Float[Tensor, "batch ..."], rules: Rules, *, augmentation: Augmentation | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, " batch"]]:
    """What the generator pays, in the unit of the loss, and the logits of its examples; `x` matters only to rules that pair.
    `augmentation` changes what is judged."""
    logit = _augmented(logit, augmentation)
    with parametrize.cached():
        on_fake = logit(fake)
        seen = on_fake
        if rules.relativistic:
            with torch.no_grad():
                on_real = logit(x)
            seen = -losses.paired(on_real, on_fake)
    return losses.ADVERSARIAL[rules.loss].of_generator(seen), on_fake


def image_recipe(config: Callable[..., Config], spec: DataSpec, budget: Budget | None, **fields: Any) -> Recipe:
    """That of a game over images: some passes over many images, some thousands of moves where they are few or large.

    Arguments:
        config: makes the config, which has an optimizer for each side. fields: more of it, and what takes the place of these optimizers.
    """
    # Quick moves that slow down: after five minutes they are well ahead of small ones.
    optimizer = Optimizer(lr=2e-3, betas=(0.0, 0.99), decay="linear", decay_start=0.3, final=0.1)
    made = config(**{"optimizer": optimizer, "discriminator_optimizer": optimizer, **fields})
    numbers = math.prod(spec.shape)
    if numbers > LARGE:
        return Recipe(config=made, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
    few = Budget(steps=4500 if numbers <= 4096 else 1500)
    return Recipe(config=made, batch_size=64, budget=budget or (few if 0 < spec.size < 5000 else Budget(epochs=10)), ema=0.998)


def vector_recipe(config: Callable[..., Config], budget: Budget | None, **fields: Any) -> Recipe:
    """That of a game over vectors: small dense networks and some thousands of moves; arguments as in `image_recipe`."""
    optimizer = Optimizer(lr=1e-3, betas=(0.0, 0.99), decay="linear", final=0.1)
    made = config(hidden=(128, 128, 128), gamma=0.5, optimizer=optimizer, discriminator_optimizer=optimizer, **fields)
    return Recipe(config=made, batch_size=256, budget=budget or Budget(steps=6000), ema=0.998)


def normalise_spectrally(network: nn.Module) -> None:
    """Divides the weight of every linear and convolutional layer by its largest singular value, which one power iteration a
    move keeps track of; in evaluation mode none is made.

    References:
        Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), https://arxiv.org/abs/1802.05957
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            if not module.weight.any():
                module.reset_parameters()  # a branch that starts at zero has no direction to divide by
            spectral_norm(module)


@contextlib.contextmanager
def resting(network: nn.Module) -> Iterator[None]:
    """Within this context `network` leaves its memory (power iterations, running means) as it is, though it be in training
    mode: a player that is frozen does not move by being asked."""
    kept = [
        module for module in network.modules() if isinstance(module, (parametrize.ParametrizationList, RunningMean)) and module.training
    ]
    for module in kept:
        module.eval()
    try:
        yield
    finally:
        for module in kept:
            module.train()
