"""The discriminator's side of a game, the same whoever makes the fakes."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from pofx import losses
from pofx.core import Loss


def discriminator_loss(
    logit: Callable[[Tensor], Float[Tensor, " batch"]], x: Float[Tensor, "batch ..."], fake: Float[Tensor, "fakes ..."], gamma: float
) -> Loss:
    """The terms `real` and `fake` in nats, and the R1 `penalty` with weight `gamma`; the mean logits as metrics.

    Arguments:
        logit: from n examples to their n logits; it is asked once for `x` and once for `fake`.
    """
    real = []

    def on_real(x: Tensor) -> Tensor:
        # The penalty's pass over the real examples serves the loss as well.
        real.append(logit(x))
        return real[0]

    penalty = losses.r1_penalty(on_real, x)
    on_fake = logit(fake)
    return Loss(
        {"real": losses.real_loss(real[0]), "fake": losses.fake_loss(on_fake), "penalty": penalty},
        weights={"penalty": gamma},
        metrics={"real_logit": real[0].detach().mean(), "fake_logit": on_fake.detach().mean()},
    )
