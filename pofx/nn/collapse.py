"""Whether codes say anything: a posterior that equals its prior is a code that the decoder does not use."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

ACTIVE = 0.01
"""Variance of an active unit's code over examples, in variances of the prior."""
COLLAPSED = 0.05
"""Share of active units below which codes have collapsed. No larger one: a healthy model may leave half of a long code idle."""
LITTLE = 0.5
"""Nats of a whole code below which it says less than a yes or no, however many units move a little."""
TELLING = 10
"""Codes that must be the same before they are called so."""


def signs(mu: Float[Tensor, "batch latent"], kl: Float[Tensor, " latent"] | None = None) -> dict[str, float]:
    """How much of the codes is in use: active units, and the divergences of the least, the middle and the most telling one, in nats.

    Arguments:
        mu: posterior means of different examples, in standard deviations of the prior.
        kl: mean divergence of each dimension in nats, where it is known.
    """
    if len(mu) < 2:
        return {}
    found = {"codes/active_units": float(_active(mu))}
    if kl is not None:
        found |= {"codes/kl_least": float(kl.min()), "codes/kl_median": float(kl.float().quantile(0.5)), "codes/kl_most": float(kl.max())}
    return found


def _active(mu: Float[Tensor, "batch latent"]) -> int:
    return int((mu.detach().var(0) > ACTIVE).sum())


def collapsed(mu: Float[Tensor, "batch latent"], kl: Float[Tensor, " latent"] | None = None) -> Mapping[str, str]:
    """The symptom of codes that have collapsed onto a prior N(0, I), if they have.

    Arguments:
        mu: posterior means of different examples.
        kl: mean divergence of each dimension in nats, for the sentence.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), section 5.2, https://arxiv.org/abs/1509.00519
    """
    if len(mu) < TELLING:
        return {}
    active, nats = _active(mu), LITTLE if kl is None else float(kl.detach().sum())
    if active >= max(1, COLLAPSED * mu.shape[1]) and nats >= LITTLE:
        return {}
    spent = f", {nats:.2g} nats in all" if kl is not None else ""
    return {
        "collapsed codes": f"{active} of {mu.shape[1]} latent dimensions vary with x{spent}, so that the decoder does without the code "
        "and reconstructions are all alike: weaken the divergence (beta), warm it up for longer, give free bits, or take a smaller decoder"
    }
