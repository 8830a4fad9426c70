"""The hierarchical variational autoencoder: codes on several scales, each drawn in the light of those above it.

    log p(x) >= E_q log p(x|z) - beta sum_l E_q KL(q(z_l|x, z_<l) || p(z_l|z_<l))        (a bound for beta = 1)

Inference goes top-down along the decoder's own path (a ladder), with features of x gathered bottom-up. Each layer's code
is written in standardised variables, z_l = mu_l(z_<l) + sigma_l(z_<l) eps_l, so that the prior over all eps together is
N(0, I), or on top a mixture: a code is the eps of all layers side by side, the top one first.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Loss, Model, Noise, Optimizer, Recipe, Samples, Scores, UsageError
from pofx.nn import importance, labels
from pofx.nn.conv import LARGE, pyramid
from pofx.nn.ladder import Ladder, Scale
from pofx.nn.observation import CONDITION, Observation
from pofx.nn.priors import Mixture, Prior, StandardNormal

IDLE = 0.01
"""Nats an example below which a layer of latents holds nothing."""


class HierarchicalVAE(Model, Samples, Encodes, Decodes, Scores):
    """A ladder of latent layers: a vector on top, for images maps of rising resolution below it.

    The loss terms `reconstruction` (-E log p(x|z)) and `kl` (of all layers) are in nats per example; the divergence of
    each layer is logged beside them. With convolutions, scale 0 is a vector, and scales 1, 2, ... are maps, the
    coarsest first (28 x 28 has 7 x 7 and 14 x 14). Where the data have further sizes than there are scales, blocks of
    pixels become channels.

    References:
        Ladder Variational Autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021),
        https://arxiv.org/abs/2011.10650
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016; free bits),
        https://arxiv.org/abs/1606.04934
        Importance Weighted Autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
    """

    kinds = frozenset({"images", "vectors", "sequences"})
    conditions: ClassVar = {Scores: CONDITION}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the hierarchical variational autoencoder."""

        architecture: Literal["dense", "conv"] = "dense"
        """dense: every scale is a vector; conv: a vector on top of maps, for images only."""
        layers: tuple[core.Positive, ...] = (1, 1)
        """Latent layers of each scale, the top one first."""
        latents: tuple[core.Positive, ...] = (16, 32)
        """Units (of maps: channels) of the code of each layer, for each scale."""
        widths: tuple[core.Positive, ...] = (256, 256)
        """Units (of maps: channels) of the features, for each scale."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of the hidden units of the residual blocks that training silences."""
        likelihood: Literal["bernoulli", "gaussian", "logistic"] | None = None
        """p(x|z). None: bernoulli for binary images, logistic for 8-bit ones, gaussian for real numbers (scales are
        learned). bernoulli and gaussian on 8-bit images are losses without a likelihood."""
        prior: Literal["normal", "mixture"] = "normal"
        """p of the top layer's code: N(0, I), or a mixture of learned Gaussians."""
        components: core.Positive = 500
        """Gaussians of the prior mixture."""
        beta: core.NonNegative = 1.0
        """Weight of the divergences."""
        warmup: core.Fraction = 0.1
        """Share of the budget over which the weight of the divergences rises from 0 to beta."""
        free_bits: core.NonNegative = 0.0
        """Nats a layer that training does not charge for at first; the allowance falls to 0 over the budget."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.observation = Observation(spec, config.likelihood or Observation.natural(spec))
        self.ladder = Ladder(spec.shape, _scales(spec, config), dropout=config.dropout)
        self.latent = sum(self.ladder.codes)
        self.code_prior: Prior = StandardNormal(self.latent)
        if config.prior == "mixture":
            self.code_prior = Mixture(self.latent, config.components, learned=self.ladder.codes[0])

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Scales and widths as the data ask for, with the likelihood that the data have."""
        natural = Observation.natural(spec)
        optimizer = Optimizer(lr=3e-3, warmup=0.05, decay="cosine", final=0.02, clip=200.0)
        if spec.kind != "images":
            features = math.prod(spec.shape)
            latents = (max(1, min(8, features // 4)), max(1, min(8, features // 2)))
            config = cls.Config(latents=latents, widths=(128, 128), likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=60))
        # At equal time, maps of a quarter of an image's height beat those of a half: they are four times as cheap.
        maps = max(1, len(pyramid(*spec.shape[1:])) - 2)
        large, few = math.prod(spec.shape) > LARGE, 0 < spec.size < 5000
        config = cls.Config(
            architecture="conv",
            layers=(1, *(2, 2, 1, 1, 1, 1)[:maps]),
            latents=(32, *(8, 4, 4, 2, 2, 2)[:maps]),
            widths=(256, *(64, 64, 32, 32, 32, 32)[:maps]),
            dropout=0.1 if few else 0.0,
            likelihood=natural,
            optimizer=optimizer if not large else dataclasses.replace(optimizer, lr=1e-3),
        )
        if few:
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=1500 if large else 3000), ema=0.998)
        return Recipe(config=config, batch_size=128, budget=budget or Budget(epochs=60), ema=0.999)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which likelihood it is."""
        return (self.observation.note,)

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Scores only where p(x|z) is a likelihood of these data."""
        return super().capabilities - ({Scores} if self.observation.space is None else set())

    def _walk(self, x: Tensor, noise: Float[Tensor, "rows codes"]) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's output, and mu and log_var of the posterior of all codes, in the code that `noise` leads to."""
        output, mu, log_var = self.ladder(x, noise).split((math.prod(self.spec.shape), self.latent, self.latent), 1)
        return output.unflatten(1, self.spec.shape), mu, log_var

    # ----------------------------------------------------------------------------------------------------- training

    def loss(self, batch: Batch) -> Loss:
        """-E_q log p(x|z) and the divergences of all layers with their warm-up; while free bits last, what layers below
        their allowance are charged nevertheless is the term `free_bits`."""
        noise = torch.randn(len(batch.x), self.latent, device=batch.x.device)
        output, mu, log_var = self._walk(batch.x, noise)
        reconstruction = self.observation.nll(output, batch.x).mean()
        kl = self.layer_kl(mu, log_var, noise)
        terms = {"reconstruction": reconstruction, "kl": kl.sum()}
        config, progress = self.config, float(self.progress)
        weight = config.beta * self.risen(config.warmup)
        weights = {"kl": weight}
        if self.training and config.free_bits:
            # max(kl, allowance) = kl + what is missing to the allowance, which cancels the gradient of idle layers.
            terms["free_bits"] = (config.free_bits * (1 - progress) - kl).clamp(min=0).sum()
            weights["free_bits"] = weight
        return Loss(terms, weights=weights, metrics={f"kl_{i + 1}": value.detach() for i, value in enumerate(kl)})

    def layer_kl(
        self, mu: Float[Tensor, "batch codes"], log_var: Float[Tensor, "batch codes"], noise: Float[Tensor, "batch codes"]
    ) -> Float[Tensor, " layers"]:
        """E_q KL(q(z_l|x, z_<l) || p(z_l|z_<l)) of each layer, in nats per example: in closed form, where p is a mixture by the
        codes that `noise` leads to."""
        parts = zip(mu.split(self.ladder.codes, 1), log_var.split(self.ladder.codes, 1), strict=True)
        kl = torch.stack([losses.kl_to_standard_normal(*part).mean() for part in parts])
        if self.config.prior == "normal":
            return kl
        # All layers together less those that have a closed form.
        eps, top = mu + (0.5 * log_var).exp() * noise, self.ladder.codes[0]
        others = losses.normal_log_prob(eps[:, top:], 0.0, 0.0)
        ratio = _log_q(noise[:, :top], log_var[:, :top]) - (self.code_prior.log_prob(eps) - others)
        return torch.cat((ratio.mean()[None], kl[1:]))

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Layers whose posterior is their prior."""
        kl = self._nats(batch.x)
        idle = [str(i + 1) for i, value in enumerate(kl) if value < IDLE]
        if not idle:
            return {}
        many = len(idle) > 1
        return {
            "idle layers": f"of {len(kl)} latent layers (1 is the top) {'numbers' if many else 'number'} {', '.join(idle)} "
            f"{'hold' if many else 'holds'} less than {IDLE:g} nats an example, so that the decoder does without "
            f"{'them' if many else 'it'}: leave {'them' if many else 'it'} out (layers), give free bits, or warm the divergence up for longer"
        }

    def signs(self, batch: Batch) -> Mapping[str, float]:
        """Nats of each layer, the first one on top."""
        return {f"codes/layer_{i}": value for i, value in enumerate(self._nats(batch.x), 1)}

    def _nats(self, x: Tensor) -> list[float]:
        noise = torch.randn(len(x), self.latent, generator=torch.Generator().manual_seed(0)).to(x.device)
        return self.layer_kl(*self._walk(x, noise)[1:], noise).tolist()

    # ------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> Distribution:
        """That of the standardised codes of all layers: N(0, I) but for a mixture on top."""
        return self.code_prior.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The posterior means of all layers, each given the means above it."""
        labels.refuse(label, "a hierarchical_vae")
        return self._walk(x, torch.zeros(len(x), self.latent, device=x.device))[1]

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|z); in tables the likeliest category."""
        labels.refuse(label, "a hierarchical_vae")
        return self.observation.mean(self._output(z))

    def _output(self, z: Float[Tensor, "batch latent"]) -> Tensor:
        return self.ladder(None, z).unflatten(1, self.spec.shape)

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """Decodes n codes from the prior, or from one that was fitted later.

        Arguments:
            mode: the mean of p(x|z) or a draw from it. None: the mean for images, a draw for anything else.
            temperature: multiplies the standard deviation of every layer's prior (of each component of a mixture).
        """
        labels.refuse(label, "a hierarchical_vae")
        z = (self.fitted or self.code_prior).draw(noise, temperature=temperature)
        output = self._output(z)
        return self.observation.show(output, noise, mode)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None, samples: int = importance.BLOCK) -> core.Likelihood:
        """The importance-weighted bound log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), in the model's units.

        Arguments:
            samples: K. Raises `UsageError` where p(x|z) is no likelihood of these data.
        """
        labels.refuse(label, "a hierarchical_vae")
        space = self.observation.likelihood_space()
        nats = importance.importance_bound(
            x, self._weigh(x), noise=self.latent, samples=samples, numbers=max(self.latent, self.ladder.numbers)
        )
        return core.Likelihood(nats=nats, kind="lower bound", space=space, samples=samples)

    def _weigh(self, x: Tensor) -> Callable[[slice], Callable[[Tensor], Tensor]]:
        """log p(x, z) - log q(z|x) of several draws for some examples."""

        def rows(part: slice) -> Callable[[Tensor], Tensor]:
            def log_weight(noise: Tensor) -> Tensor:
                k, noise = noise.shape[1], noise.flatten(0, 1)
                output, mu, log_var = self._walk(x[part], noise)
                nll = self.observation.nll(output, x[part].repeat_interleave(k, 0))
                eps = mu + (0.5 * log_var).exp() * noise
                ratio = self.code_prior.log_prob(eps) - _log_q(noise, log_var)
                return (ratio - nll).view(-1, k)

            return log_weight

        return rows


def _log_q(noise: Float[Tensor, "rows codes"], log_var: Float[Tensor, "rows codes"]) -> Float[Tensor, " rows"]:
    """log q(eps|x) of eps = mu + sigma noise."""
    return losses.normal_log_prob(noise, 0.0, 0.0) - 0.5 * log_var.sum(1)


def _scales(spec: DataSpec, config: HierarchicalVAE.Config) -> list[Scale]:
    """The scales of a configuration. Raises `UsageError` where it does not fit itself or the data."""
    lengths = {name: len(getattr(config, name)) for name in ("layers", "latents", "widths")}
    if len(set(lengths.values())) > 1 or not config.layers:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(f"layers, latents and widths have one entry for each scale, and here they have {told}: make them equal")
    sizes: list[tuple[int, int] | None] = [None] * len(config.layers)
    if config.architecture == "conv":
        if spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        maps = pyramid(*spec.shape[1:])[:0:-1]
        if not 1 <= len(sizes) - 1 <= len(maps):
            raise UsageError(
                f"images of {spec.shape[1]} x {spec.shape[2]} have 2 to {len(maps) + 1} scales with conv, a vector and maps of "
                f"{', '.join(f'{height} x {width}' for height, width in maps)}, and layers names {len(sizes)}: shorten or lengthen it"
            )
        sizes = [None, *maps[: len(sizes) - 1]]
    return [Scale(*fields) for fields in zip(sizes, config.widths, config.layers, config.latents, strict=True)]
