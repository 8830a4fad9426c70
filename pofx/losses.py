"""Losses as pure functions: divergences, negative log-likelihoods, adversarial losses and penalties.

Everything here is computed in float32 or more, outside autocast. What is "per example" is summed over all other
dimensions and has shape (batch,); the unit is nats unless a docstring says otherwise.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pofx.convolution import twice_differentiable

LEVELS = 256
"""Grey levels of an 8-bit image; level k is the pixel value k / 255."""


def kl_to_standard_normal(mu: Float[Tensor, "batch latent"], log_var: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
    """KL(N(mu, diag exp log_var) || N(0, I)) = 1/2 sum(mu^2 + exp(log_var) - 1 - log_var), in nats per example.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), appendix B, https://arxiv.org/abs/1312.6114
    """
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(-1)


def normal_log_prob(z: Float[Tensor, "... latent"], mu: Tensor | float, log_var: Tensor | float) -> Float[Tensor, "..."]:
    """log N(z; mu, diag exp log_var), summed over the last dimension."""
    log_var = torch.as_tensor(log_var, dtype=z.dtype, device=z.device)
    return -0.5 * ((z - mu).square() * (-log_var).exp() + log_var + math.log(2 * math.pi)).sum(-1)


def bernoulli_nll(logits: Float[Tensor, "batch ..."], x: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """-log P(x) of independent coins, x logit: sum(softplus(l) - x l), in nats per example.

    With x in {0, 1} this is a likelihood; with grey values in [0, 1] it is the cross-entropy, a loss only.
    """
    logits, x = logits.flatten(1), x.flatten(1)
    return F.softplus(logits).sum(1) - torch.linalg.vecdot(x, logits)


def squared_error(
    mean: Float[Tensor, "batch ..."], x: Float[Tensor, "batch ..."], *, mask: Float[Tensor, "batch ..."] | None = None
) -> Float[Tensor, " batch"]:
    """1/2 ||x - mean||^2 per example: a Gaussian of variance one in nats, up to the constant D/2 log 2 pi.

    Elements where `mask` is 0 are left out, those where it is 1 count.
    """
    error = 0.5 * (mean - x).square()
    return (error if mask is None else error * mask).flatten(1).sum(1)


def gaussian_nll(
    mean: Float[Tensor, "batch ..."],
    log_scale: Tensor,
    x: Float[Tensor, "batch ..."],
    *,
    mask: Float[Tensor, "batch ..."] | None = None,
) -> Float[Tensor, " batch"]:
    """-log N(x; mean, diag exp(2 log_scale)), in nats per example; `log_scale` broadcasts against x.

    Elements where `mask` is 0 are left out, those where it is 1 count.
    """
    nll = 0.5 * ((x - mean) * (-log_scale).exp()).square() + log_scale + 0.5 * math.log(2 * math.pi)
    return (nll if mask is None else nll * mask).flatten(1).sum(1)


def discretised_logistic_nll(mean: Float[Tensor, "..."], log_scale: Tensor, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """-log P(x) of each 8-bit pixel x = k / 255, a logistic variable rounded to its level, in nats; arguments broadcast.

    P(x) = sigmoid(a) - sigmoid(b) with a, b = (x - mean +- 1/510) / scale; the lowest and the highest level take the
    tails. The difference is sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm is safe for every scale.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """
    inverse = (-log_scale).exp()
    centred, half = (x - mean) * inverse, inverse / (2 * (LEVELS - 1))
    # Half a level of slack: pixels come as k * (1 / 255) in float32.
    lowest, highest = x < 0.5 / (LEVELS - 1), x > 1 - 0.5 / (LEVELS - 1)
    upper = F.softplus(-(centred + half)).masked_fill(highest, 0.0)
    lower = F.softplus(centred - half).masked_fill(lowest, 0.0)
    width = torch.log(-torch.expm1(-2 * half)).expand_as(upper).masked_fill(lowest | highest, 0.0)
    return upper + lower - width


def total_correlation(
    z: Float[Tensor, "batch latent"], mu: Float[Tensor, "batch latent"], log_var: Float[Tensor, "batch latent"], size: int
) -> Float[Tensor, ""]:
    """KL(q(z) || prod_j q(z_j)) of the aggregated posterior, in nats.

    q(z) is estimated from the batch by stratified sampling: the code's own posterior counts once, and the others for all other
    training examples.

    Arguments:
        z: a draw from each posterior N(mu, diag exp log_var).
        size: number of training examples that the batch stands for.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), appendix C.2,
        https://arxiv.org/abs/1802.04942
    """
    # (i, j, d): dimension d of code i under the posterior of example j.
    each = -0.5 * ((z[:, None] - mu).square() * (-log_var).exp() + log_var + math.log(2 * math.pi))
    size, others = max(size, len(z)), max(1, len(z) - 1)
    share = torch.full((len(z), len(z)), math.log(max(1, size - 1) / (size * others)), device=z.device)
    share.fill_diagonal_(-math.log(size))
    return ((each.sum(2) + share).logsumexp(1) - (each + share[..., None]).logsumexp(1).sum(1)).mean()


def mmd(x: Float[Tensor, "n latent"], y: Float[Tensor, "n latent"]) -> Float[Tensor, ""]:
    """The unbiased squared maximum mean discrepancy of two sets of codes of equal size, without a unit.

    The kernel is a sum of inverse multiquadratics c / (c + ||x - y||^2) with c = 2 latent s, s from 0.1 to 10.

    References:
        Wasserstein Auto-Encoders (Tolstikhin et al., 2018), section 4, https://arxiv.org/abs/1711.01558
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao et al., 2019), https://arxiv.org/abs/1706.02262
    """
    n, scales = len(x), 2 * x.shape[1] * x.new_tensor((0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
        return (scales / (scales + distance[..., None])).sum(-1)

    own = [(k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(x, x), kernel(y, y))]
    return own[0] + own[1] - 2 * kernel(x, y).mean()


def categorical_nll(logits: Float[Tensor, "batch categories"], x: Float[Tensor, "batch categories"]) -> Float[Tensor, " batch"]:
    """-log P(x) of a one-hot x under softmax(logits), in nats per example."""
    return -(x * logits.log_softmax(-1)).sum(-1)


def bernoulli_activity_kl(activity: Float[Tensor, " units"], target: float) -> Float[Tensor, ""]:
    """sum_j KL(Bernoulli(target) || Bernoulli(activity_j)) of mean activities in [0, 1], in nats.

    References:
        Sparse deep belief net model for visual area V2 (Lee et al., 2007), https://papers.nips.cc/paper/3313
    """
    activity = activity.clamp(1e-6, 1 - 1e-6)
    return (torch.xlogy(target, target / activity) + torch.xlogy(1 - target, (1 - target) / (1 - activity))).sum()


def exponential_activity_kl(activity: Float[Tensor, " units"], target: float) -> Float[Tensor, ""]:
    """sum_j KL(Exp of mean activity_j || Exp of mean target) of mean activities in [0, inf), in nats.

    That is activity / target - 1 - log(activity / target): an L1 penalty with a wall before units that are never active.
    """
    ratio = activity.clamp(min=1e-6) / target
    return (ratio - 1 - ratio.log()).sum()


def jacobian_norm(z: Float[Tensor, "batch latent"], x: Float[Tensor, "batch ..."], *, projections: int | None = None) -> Float[Tensor, ""]:
    """E ||dz/dx||_F^2 over a batch; its unit is (unit of z)^2 over (unit of x)^2.

    With signs v drawn at random E_v ||v^T dz/dx||^2 is the squared norm, so that a few backward passes estimate what
    would take one for each number of the code. The result can be differentiated.

    Arguments:
        z: computed from x, each row from its own row of x alone.
        x: requires gradients.
        projections: number of random v; None: the exact norm.

    References:
        Contractive Auto-Encoders: Explicit Invariance During Feature Extraction (Rifai et al., 2011),
        https://icml.cc/2011/papers/455_icmlpaper.pdf
        A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing Splines (Hutchinson, 1990),
        https://doi.org/10.1080/03610919008812866
    """
    if projections is None:
        directions = torch.eye(z.shape[1], device=z.device, dtype=z.dtype)[:, None].expand(-1, len(z), -1)
    else:
        directions = torch.randint(2, (projections, *z.shape), device=z.device).to(z.dtype).mul(2).sub(1)
    total = z.new_zeros(())
    for direction in directions:
        (gradient,) = torch.autograd.grad(z, x, direction, create_graph=True)
        total = total + gradient.square().sum()
    return total / (len(z) * (projections or 1))


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """What the two players of an adversarial game pay for one logit D(x); higher logits mean "real" in all of them.

    Attributes:
        real: what the discriminator pays for the logit of a real example.
        fake: what the discriminator pays for the logit of a generated example.
        generator: what the generator pays for the logit of its own example.
        relative: whether logits are known up to a constant only, so that a single one says nothing.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    relative: bool = False

    def of_real(self, logits: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The discriminator's mean loss on real examples."""
        return self.real(logits).mean()

    def of_fake(self, logits: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The discriminator's mean loss on generated examples."""
        return self.fake(logits).mean()

    def of_generator(self, logits: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The generator's mean loss on its own examples."""
        return self.generator(logits).mean()


AdversarialName = Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"]

ADVERSARIAL: Mapping[AdversarialName, Adversarial] = {
    "non_saturating": Adversarial(real=lambda d: F.softplus(-d), fake=F.softplus, generator=lambda d: F.softplus(-d)),
    "minimax": Adversarial(real=lambda d: F.softplus(-d), fake=F.softplus, generator=lambda d: -F.softplus(d)),
    "least_squares": Adversarial(
        real=lambda d: 0.5 * (d - 1).square(), fake=lambda d: 0.5 * (d + 1).square(), generator=lambda d: 0.5 * (d - 1).square()
    ),
    "hinge": Adversarial(real=lambda d: F.relu(1 - d), fake=lambda d: F.relu(1 + d), generator=lambda d: -d),
    "wasserstein": Adversarial(real=lambda d: -d, fake=lambda d: d, generator=lambda d: -d, relative=True),
}
"""The adversarial losses by name, with s the sigmoid and d = D(x) the logit:

    non_saturating   real -log s(d)        fake -log(1 - s(d))   generator -log s(d)           in nats
    minimax          real -log s(d)        fake -log(1 - s(d))   generator  log(1 - s(d))      in nats
    least_squares    real 1/2 (d - 1)^2    fake 1/2 (d + 1)^2    generator  1/2 (d - 1)^2
    hinge            real max(0, 1 - d)    fake max(0, 1 + d)    generator -d
    wasserstein      real -d               fake  d               generator -d

In minimax, the lecture's game, both play for one sum; its generator learns nothing where the discriminator is sure, since there
the slope of log(1 - s(d)) is 0. Relativistic pairing takes any of them on differences of logits: see `paired`.

References:
    Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661 (minimax, non-saturating)
    Least Squares Generative Adversarial Networks (Mao et al., 2017), https://arxiv.org/abs/1611.04076
    Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894 (hinge)
    Wasserstein GAN (Arjovsky et al., 2017), https://arxiv.org/abs/1701.07875
"""
NON_SATURATING = ADVERSARIAL["non_saturating"]


def paired(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """D(x) - D(G(z)): the logit by which a real example seems more real than the generated one of its row.

    The discriminator pays `Adversarial.real` of it, and the generator `Adversarial.generator` of its negative. Without a
    common zero no logit is high by itself, which takes away the minima in which the generator drops modes.

    References:
        The relativistic discriminator: a key element missing from standard GAN (Jolicoeur-Martineau, 2018),
        https://arxiv.org/abs/1807.00734
        Towards a Better Global Loss Landscape of GANs (Sun et al., 2020), https://arxiv.org/abs/2011.04926
    """
    return real - fake


def squared_slopes(discriminator: Callable[[Tensor], Float[Tensor, " batch"]], x: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """||grad_x D(x)||^2 of each example, in logits^2 over (unit of x)^2.

    `discriminator` gives one logit an example; where it mixes examples (a minibatch statistic), a slope is that of the sum of
    their logits. The result can be differentiated with respect to the discriminator's parameters; `x` is left as it is.
    """
    with torch.enable_grad(), twice_differentiable():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def zero_centred_penalty(discriminator: Callable[[Tensor], Float[Tensor, " batch"]], x: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """1/2 E ||grad_x D(x)||^2: R1 on real examples, R2 on generated ones; its weight is gamma.

    `discriminator` and `x` as `squared_slopes` has them.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
        The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024), https://arxiv.org/abs/2501.05441
    """
    return 0.5 * squared_slopes(discriminator, x).mean()


def one_centred_penalty(discriminator: Callable[[Tensor], Float[Tensor, " batch"]], x: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """E (||grad_x D(x)|| - 1)^2, two-sided: WGAN-GP on `interpolates`, DRAGAN on `perturbed` examples; its usual weight is 10.

    `discriminator` and `x` as `squared_slopes` has them.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028
        On Convergence and Stability of GANs (Kodali et al., 2017), https://arxiv.org/abs/1705.07215
    """
    # The root has no slope at 0, where every discriminator starts that has no last weights yet.
    return (squared_slopes(discriminator, x).clamp(min=1e-12).sqrt() - 1).square().mean()


def interpolates(real: Float[Tensor, "batch ..."], fake: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """One point of each line from a real to a generated example, uniform between them, by the global generator."""
    return torch.lerp(real, fake, torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device))


def perturbed(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """x + u std/2: each number moved up by as much as half of the batch's standard deviation (of all numbers), uniformly, by the
    global generator."""
    return x + 0.5 * x.std(correction=0) * torch.rand_like(x)
