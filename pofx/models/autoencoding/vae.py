"""The variational autoencoder: data are noise z from N(0, I), passed through a decoder; an encoder guesses the z behind an x.

    log p(x) >= E_q(z|x) log p(x|z) - beta KL(q(z|x) || N(0, I))        (a bound for beta = 1)

Both networks climb the right-hand side, through z = mu(x) + sigma(x) eps. With labels, of whatever kind, it is p(x|y) throughout. The
settings also reach K draws a step (the importance-weighted bound), other posteriors, learned priors, and weights on single
parts of the divergence.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from pofx import core, losses
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Loss, Model, Noise, Optimizer, Recipe, Samples, Scores, UsageError
from pofx.nn import collapse, importance, labels
from pofx.nn.conv import LARGE, ConvDecoder, ConvEncoder
from pofx.nn.foreign import Foreign
from pofx.nn.gaussian import Covariance, Gaussian
from pofx.nn.mlp import MLP, Activation
from pofx.nn.observation import CONDITION, Kind, Observation
from pofx.nn.priors import Flow, Mixture, Prior, StandardNormal, Vamp

CODES = 4096
"""Codes of a grid that are decoded at once."""
DRAWS = 1000
"""Codes of a learned prior whose spread is taken."""


class VAE(Model, Samples, Encodes, Decodes, Scores):
    """An encoder that gives a Gaussian over codes, and a decoder that gives a distribution over data.

    Networks of one's own (`encoder=`, from Python) go from x to mu and log variances, 2 latent-dim numbers, or with a full
    covariance to those and what is below the diagonal of its factor; `decoder=` from a code to `observation.outputs`.

    The loss terms `reconstruction` (-E log p(x|z)) and `kl` (E log q(z|x) / p(z)) are in nats per example, whatever their
    weights; settings add further terms: `tightening`, what the bound of K draws gains over theirs; `free_bits`, what
    lifts each dimension's divergence to its allowance; `total_correlation` and `mmd` of the aggregated posterior.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl
        Importance Weighted Autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), appendix C.8 (free bits),
        https://arxiv.org/abs/1606.04934
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), https://arxiv.org/abs/1802.04942
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao et al., 2019), https://arxiv.org/abs/1706.02262
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2020), https://arxiv.org/abs/2006.13202
    """

    kinds = frozenset({"images", "vectors", "sequences"})
    conditions: ClassVar = {Scores: CONDITION}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the variational autoencoder."""

        latent_dim: core.Positive = 32
        """Length of the code."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[core.Positive, ...] = (512, 512)
        """Widths of the hidden layers of the dense encoder, outermost first; the decoder mirrors them."""
        activation: Activation | None = None
        """Non-linearity of the hidden layers. None: glu, a gate for each unit, for dense ones, and silu for convolutions."""
        norm: bool = True
        """Whether the dense hidden layers are layer-normalised."""
        channels: core.Positive = 32
        """Channels at the first halving of an image (conv); they double with each further one."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of the encoder's hidden units that training silences (of the last layer's features for conv)."""
        likelihood: Literal["bernoulli", "gaussian", "logistic", "logistic_mixture", "categorical"] | None = None
        """p(x|z). None: bernoulli for binary images, logistic for 8-bit ones, gaussian for real numbers (scales are learned);
        logistic_mixture and categorical give each 8-bit pixel a distribution of its own. bernoulli and gaussian on 8-bit
        images are losses without a likelihood."""
        scale: Annotated[float | None, core.Range(0, open=True)] = None
        """Standard deviation of a gaussian p(x|z), in units of x as the model sees it. None: it is learned."""
        covariance: Covariance = "diagonal"
        """Of the posterior q(z|x): diagonal, or full by a Cholesky factor."""
        prior: Literal["normal", "mixture", "vamp", "flow"] = "normal"
        """p(z): N(0, I); mixture, of learned Gaussians; vamp, of posteriors of learned pseudo-inputs; flow, a neural spline flow."""
        components: core.Positive = 500
        """Gaussians of the prior mixture, pseudo-inputs of the prior vamp."""
        importance_samples: core.Positive = 1
        """Draws of z for each example and step, K; from 2 on the loss is the importance-weighted bound."""
        beta: core.NonNegative = 1.0
        """Weight of the divergence between q(z|x) and the prior."""
        warmup: core.Fraction = 0.1
        """Share of the budget over which the weight of the divergence rises from 0 to beta."""
        free_bits: core.NonNegative = 0.0
        """Nats of divergence that each latent dimension has for nothing at first; falls to 0 over the budget. In training only."""
        total_correlation: core.NonNegative = 1.0
        """Weight of the dependence of the latent dimensions on each other (beta-TCVAE: more than 1), which the divergence contains
        once: the total correlation is added with this weight less 1."""
        mmd: core.NonNegative = 0.0
        """Weight of the maximum mean discrepancy between codes and prior: InfoVAE; with beta 0 a WAE-MMD."""
        conditional: bool = False
        """Whether to learn p(x|label); needs data with labels: classes, attributes or values."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            plain = self.covariance == "diagonal" and self.prior == "normal"
            for name, neutral in (("free_bits", 0.0), ("total_correlation", 1.0), ("mmd", 0.0)):
                if getattr(self, name) != neutral and not plain:
                    raise UsageError(f"{name.replace('_', '-')} is for a diagonal covariance and the prior normal: leave it at {neutral:g}")
                if getattr(self, name) != neutral and self.importance_samples > 1:
                    raise UsageError(f"{name.replace('_', '-')} takes one code an example: leave importance-samples at 1")

    def __init__(self, spec: DataSpec, config: Config, *, encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        super().__init__(spec, config)
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        if config.conditional and (encoder is not None or decoder is not None):
            raise UsageError("networks of your own are given x or z alone, and a conditional vae has labels too: leave conditional out")
        self.condition = labels.Condition(spec, "vae") if config.conditional else None
        context = 0 if self.condition is None else self.condition.width
        kind: Kind = config.likelihood or Observation.natural(spec)
        self.observation = Observation(spec, kind, scale=config.scale)
        self.activation: Activation = config.activation or ("glu" if config.architecture == "dense" else "silu")
        z, outputs = config.latent_dim, self.observation.outputs
        guess = Gaussian.outputs(z, config.covariance)
        self.encoder = self._encoder(guess, context) if encoder is None else Foreign(encoder, "encoder", spec.shape, (guess,))
        self.decoder = self._decoder(outputs, context) if decoder is None else Foreign(decoder, "decoder", (z,), outputs)
        self.code_prior: Prior
        match config.prior:
            case "normal":
                self.code_prior = StandardNormal(z)
            case "mixture":
                self.code_prior = Mixture(z, config.components)
            case "vamp":
                self.code_prior = Vamp(spec.shape, config.components, bounded=spec.kind == "images", posterior=self.posterior)
            case "flow":
                if z < 2:
                    raise UsageError("the prior flow couples two halves of a code: take a latent-dim of 2 or more")
                self.code_prior = Flow(z)

    def _encoder(self, outputs: int, context: int) -> nn.Module:
        config, shape = self.config, self.spec.shape
        if config.architecture == "dense":
            return MLP(shape, outputs, config.hidden, activation=self.activation, norm=config.norm, dropout=config.dropout, context=context)
        return ConvEncoder(shape, outputs, channels=config.channels, activation=self.activation, dropout=config.dropout, context=context)

    def _decoder(self, outputs: tuple[int, ...], context: int) -> nn.Module:
        config, inputs = self.config, self.config.latent_dim + context
        if config.architecture == "dense":
            return MLP(inputs, outputs, config.hidden[::-1], activation=self.activation, norm=config.norm)
        return ConvDecoder(inputs, outputs, channels=config.channels, activation=self.activation)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Networks as wide as the data ask for, with the likelihood that the data have; convolutions for large images."""
        natural = Observation.natural(spec)
        optimizer = Optimizer(lr=2e-3, warmup=0.02, decay="cosine", final=0.02)
        if spec.kind != "images":
            latent_dim = max(2, min(16, math.prod(spec.shape) // 2))
            config = cls.Config(latent_dim=latent_dim, hidden=(256, 256), activation="silu", likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=60))
        if math.prod(spec.shape) > LARGE:
            config = cls.Config(latent_dim=64, architecture="conv", likelihood=natural, optimizer=dataclasses.replace(optimizer, lr=1e-3))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        if 0 < spec.size < 5000:
            # Few images are soon learned by heart: some dropout, and the best validation score decides. Large ones
            # cost so much more that a third of the moves must do.
            steps = 4500 if math.prod(spec.shape) <= 4096 else 1500
            config = cls.Config(latent_dim=32, hidden=(512, 256), activation="silu", dropout=0.1, likelihood=natural, optimizer=optimizer)
            return Recipe(config=config, batch_size=64, budget=budget or Budget(steps=steps), ema=0.998)
        config = cls.Config(latent_dim=32, likelihood=natural, optimizer=optimizer)
        return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=30))

    @property
    def notes(self) -> tuple[str, ...]:
        """Which likelihood it is."""
        return (self.observation.note,)

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Scores only where p(x|z) is a likelihood of these data."""
        return super().capabilities - ({Scores} if self.observation.space is None else set())

    # ------------------------------------------------------------------------------------------------- networks

    def _context(self, label: Tensor | None, like: Tensor) -> Float[Tensor, "batch context"] | None:
        """The vector of the label, the null label where there is none."""
        return None if self.condition is None else self.condition.vector(label, like)

    def _check(self, label: Tensor | None, n: int, *, missing: bool = True) -> None:
        labels.check(self.condition, label, n, "vae", missing=missing)

    def posterior(self, x: Shaped[Tensor, "batch ..."], label: Tensor | None = None) -> Gaussian:
        """q(z|x)."""
        context = self._context(label, x)
        return Gaussian.of(self.encoder(x) if context is None else self.encoder(x, context), self.config.latent_dim)

    def _output(self, z: Float[Tensor, "batch latent"], label: Tensor | None = None) -> Tensor:
        context = self._context(label, z)
        return self.decoder(z if context is None else torch.cat((z, context), 1))

    # ----------------------------------------------------------------------------------------------------- training

    def loss(self, batch: Batch) -> Loss:
        """-E_q log p(x|z) and E_q log q(z|x) / p(z) with its warm-up, in closed form where p(z) is N(0, I), and what the settings
        add; in training mode it also counts the labels."""
        label = labels.shown(self.condition, batch.label, training=self.training)
        config, q = self.config, self.posterior(batch.x, label)
        rise = self.risen(config.warmup)
        weight = config.beta * rise
        weights = {"kl": weight}
        if config.importance_samples == 1:
            z, log_q = q.draw(torch.randn_like(q.mu))
            kl = q.kl() if config.prior == "normal" else log_q - self.code_prior.log_prob(z)
            terms = {"reconstruction": self.observation.nll(self._output(z, label), batch.x).mean(), "kl": kl.mean()}
        else:
            k = config.importance_samples
            z, log_q = q.draw(torch.randn(len(q.mu), k, q.mu.shape[1], device=q.mu.device))
            ratio = log_q - self.code_prior.log_prob(z)
            nll = self._nll_of_each(z, batch.x, label)
            terms = {"reconstruction": nll.mean(), "kl": ratio.mean()}
            bound = (math.log(k) - (-nll - weight * ratio).logsumexp(1)).mean()
            terms["tightening"] = bound - terms["reconstruction"] - weight * terms["kl"]
        if config.free_bits and self.training:
            allowance = config.free_bits * (1 - float(self.progress))
            terms["free_bits"] = (allowance - q.kl_per_dimension().mean(0)).clamp(min=0).sum()
            weights["free_bits"] = weight
        if config.total_correlation != 1:
            terms["total_correlation"] = losses.total_correlation(z, q.mu, 2 * q.log_diagonal, self.spec.size)
            weights["total_correlation"] = (config.total_correlation - 1) * rise
        if config.mmd and len(z) > 1:
            terms["mmd"] = losses.mmd(z, torch.randn_like(z))
            weights["mmd"] = config.mmd
        return Loss(terms, weights=weights)

    def _nll_of_each(self, z: Float[Tensor, "batch k latent"], x: Tensor, label: Tensor | None) -> Float[Tensor, "batch k"]:
        """-log p(x|z) of several codes of each example."""
        k = z.shape[1]
        output = self._output(z.flatten(0, 1), None if label is None else label.repeat_interleave(k, 0))
        return self.observation.nll(output, x.repeat_interleave(k, 0)).view(len(x), k)

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """Codes that have collapsed onto the prior, once the divergence has its full weight."""
        if float(self.progress) < min(0.95, self.config.warmup):
            return {}
        return collapse.collapsed(*self._codes_of(batch))

    def signs(self, batch: Batch) -> Mapping[str, float]:
        """Active units, and under the prior normal nats per dimension."""
        return collapse.signs(*self._codes_of(batch))

    def _codes_of(self, batch: Batch) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, " latent"] | None]:
        """Posterior means in standard deviations of the prior, and the mean divergence of each dimension where that is known."""
        q = self.posterior(batch.x, batch.label if self.config.conditional else None)
        # A learned prior has a scale of its own; its nats are not those of N(0, I).
        if self.config.prior == "normal":
            return q.mu, q.kl_per_dimension().mean(0)
        return q.mu / self.code_prior.draw(Noise(0, DRAWS, device=self.device)).std(0), None

    # ------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> Distribution:
        """p(z)."""
        return self.code_prior.distribution()

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The posterior mean; a conditional model without a label uses the null label."""
        self._check(label, len(x))
        return self.posterior(x, label).mu

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|z); in tables the likeliest category. Without a label, as `encode`."""
        self._check(label, len(z))
        return self.observation.mean(self._output(z, label))

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples under the labels `label`, or under labels drawn from the training marginal.

        Arguments:
            mode: the mean of p(x|z) or a draw from it. None: the mean for images, a draw for anything else.
            temperature: multiplies the standard deviation of the prior (of each component of mixture and vamp, of the noise behind flow).
        """
        self._check(label, n, missing=False)
        if self.condition is not None and label is None:
            label = self.condition.draw(noise)
        # Under the prior the code does not depend on the label, nor does it under one that was fitted to all codes.
        output = self._output((self.fitted or self.code_prior).draw(noise, temperature=temperature), label)
        return self.observation.show(output, noise, mode)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None, samples: int | None = None) -> core.Likelihood:
        """log p(x) in the model's units: the importance-weighted bound of K draws from q(z|x), or the integral over codes.

        A conditional model without labels gives log sum_y p(y) p(x|y) over the training marginal, a lower bound in the mean
        where this has so many different rows of attributes or values that some of them stand for all.

        Arguments:
            samples: K. None: the integral, by an even grid of codes, where they have at most two dimensions, the data are coins
                or few numbers, and the grid resolves the posterior of each example and holds the whole prior; else K = 64.
        Raises `UsageError` where p(x|z) is no likelihood of these data.
        """
        space = self.observation.likelihood_space()
        self._check(label, len(x))
        choices: list[Tensor | None] = [label]
        log_marginal, whole = x.new_zeros(1), True
        if self.condition is not None and label is None:
            mixed, log_marginal, whole = self.condition.mixture()
            choices = [row.expand(len(x), *row.shape) for row in mixed]
        log_prior = None
        if samples is None and self._integrable and all(importance.resolved(self.posterior(x, y)) for y in choices):
            log_prior = self._prior_on_grid()
        if log_prior is not None:
            nats = torch.stack([self._integral(x, y, log_prior) for y in choices])
        else:
            samples = importance.BLOCK if samples is None else samples
            nats = torch.stack([self._bound(x, y, samples) for y in choices])
        return core.Likelihood(
            nats=(nats + log_marginal[:, None]).logsumexp(0),
            kind="exact" if samples is None and whole else "lower bound",
            space=space,
            samples=samples,
        )

    def _bound(self, x: Tensor, label: Tensor | None, samples: int) -> Float[Tensor, " batch"]:
        def rows(part: slice) -> Tensor | None:
            return None if label is None else label[part]

        weigh = importance.of_gaussians(
            lambda part: self.posterior(x[part], rows(part)),
            self.code_prior.log_prob,
            lambda z, part: self._nll_of_each(z, x[part], rows(part)),
        )
        numbers = math.prod(self.observation.outputs)
        return importance.importance_bound(x, weigh, noise=self.config.latent_dim, samples=samples, numbers=numbers)

    @property
    def _integrable(self) -> bool:
        """Whether a grid covers the codes, and few examples are not too many numbers under all of it."""
        cheap = self.observation.kind == "bernoulli" or math.prod(self.spec.shape) <= 8
        return self.config.latent_dim <= 2 and cheap

    def _prior_on_grid(self) -> Float[Tensor, " points"] | None:
        """log p(z) of each code of the grid; None where a learned prior reaches beyond it or is too narrow for it."""
        codes = importance.grid(self.config.latent_dim).z.to(self.device)
        log_prior = torch.cat([self.code_prior.log_prob(z) for z in codes.split(CODES)])
        return log_prior if self.config.prior == "normal" or importance.covered(log_prior, self.config.latent_dim) else None

    def _integral(self, x: Tensor, label: Tensor | None, log_prior: Float[Tensor, " points"]) -> Float[Tensor, " batch"]:
        """log of the sum of p(x|z) p(z) over a grid; of one label at a time, since its decoder differs."""
        codes, log_volume = importance.grid(self.config.latent_dim)
        total = x.new_full((len(x),), -math.inf)
        # Rows that share a label are found by its vector, in which what is missing equals itself.
        vectors = None if label is None or self.condition is None else self.condition.vector(label, x)
        groups = (
            torch.zeros(len(x), dtype=torch.int64, device=x.device) if vectors is None else vectors.unique(dim=0, return_inverse=True)[1]
        )
        for group in groups.unique():
            rows = groups == group
            y = None if label is None else label[rows][:1]
            for z, log_p in zip(codes.to(x.device).split(CODES), log_prior.split(CODES), strict=True):
                output = self._output(z, None if y is None else y.expand(len(z), *y.shape[1:]))
                log_joint = log_p - self.observation.nll_of_pairs(output, x[rows])
                total[rows] = torch.logaddexp(total[rows], log_joint.logsumexp(1))
        return total + log_volume
