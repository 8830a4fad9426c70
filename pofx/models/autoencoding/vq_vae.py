"""The vector-quantised VAE: a code is a row of entries of a codebook, and a transformer learns which rows there are.

    autoencoder:  minimise  -log p(x|e_k) + beta ||z - sg(e_k)||^2,    z = encoder(x),  k = argmin_j ||z - e_j||  at each place
    prior:        minimise  -log p(k) = -sum_i log p(k_i | k_1, ..., k_i-1),    once the autoencoder stands still

The decoder's gradient passes the quantisation as if it were not there, and the entries follow what they stand for. Since
q(k|x) is a single k,  log p(x) >= log p(x|e_k) + log p(k).

Reached on Fashion-MNIST in 3 passes, half of the recipe's (some 4 minutes of one core of its own): squared error 0.0059 a pixel over the first
1,000 test images, a codebook of 256 entries as evenly used as 146, codes of 167 bits.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pofx import core
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Decodes,
    Encodes,
    Likelihood,
    Loss,
    Model,
    Network,
    Noise,
    Optimizer,
    Player,
    Positive,
    Recipe,
    Samples,
    Scores,
    UsageError,
)
from pofx.nn import labels
from pofx.nn.attention import Memory
from pofx.nn.codebook import Codebook, perplexity
from pofx.nn.conv import pyramid, widths
from pofx.nn.mlp import MLP
from pofx.nn.next_token import NextToken, probabilities
from pofx.nn.observation import CONDITION, Observation

PART = 512
"""Codes that are drawn together: the transformer remembers all of their places at once."""
SLACK = 1e-6
"""Squared distance of a vector from an entry, in squared lengths of entries, up to which they are the same."""
USED = 0.1
"""Perplexity of a codebook, as a share of its entries, below which most of it is idle."""


class _Residual(nn.Module):
    """x + a 1x1 convolution of a 3x3 convolution of x, of half the channels, each behind a non-linearity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.layers = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, inner, 3, padding=1), nn.SiLU(), nn.Conv2d(inner, channels, 1))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        return x + self.layers(x)


class _GridEncoder(Network):
    """Images to vectors at the places of a grid: a 3x3 convolution of stride 2 for each size after the first, then residual blocks."""

    def __init__(self, sizes: tuple[tuple[int, int], ...], in_channels: int, code_dim: int, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for wider in widths(len(sizes) - 1, channels):
            self.layers.extend((nn.Conv2d(in_channels, wider, 3, stride=2, padding=1), nn.SiLU()))
            in_channels = wider
        # The residual path is a sum, which the last non-linearity would cut in half.
        self.layers[-1] = nn.Identity()
        self.layers.extend(_Residual(in_channels) for _ in range(blocks))
        self.layers.extend((nn.SiLU(), nn.Conv2d(in_channels, code_dim, 1)))

    def compute(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch places code_dim"]:
        return self.layers(x).flatten(2).transpose(1, 2)


class _GridDecoder(Network):
    """The mirror of `_GridEncoder`: residual blocks, then a transposed 4x4 convolution of stride 2 for each doubling."""

    def __init__(self, sizes: tuple[tuple[int, int], ...], out_channels: int, code_dim: int, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.sizes = sizes[::-1]
        width, *narrower = widths(len(sizes) - 1, channels)[::-1]
        self.stem = nn.Sequential(nn.Conv2d(code_dim, width, 3, padding=1), *(_Residual(width) for _ in range(blocks)))
        self.ups = nn.ModuleList()
        for following in (*narrower, out_channels):
            self.ups.append(nn.Sequential(nn.SiLU(), nn.ConvTranspose2d(width, following, 4, stride=2, padding=1)))
            width = following

    def compute(self, z: Float[Tensor, "batch places code_dim"]) -> Float[Tensor, "batch channels height width"]:
        x = self.stem(z.transpose(1, 2).unflatten(2, self.sizes[0]))
        for up, (height, width) in zip(self.ups, self.sizes[1:], strict=True):
            # Twice the size, of which an odd one needs a row less.
            x = up(x)[..., :height, :width]
        return x


class VQVAE(Model, Samples, Encodes, Decodes, Scores):
    """An autoencoder whose code is a grid (images) or a row (anything else) of codebook entries, with a prior over them.

    The terms `reconstruction` (-log p(x|e_k)) and `nll` (-log p(k)) are in nats per example, `commitment` is the squared
    distance of an example's vectors to their entries; `perplexity` is the number of entries that are as good as in use.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), https://arxiv.org/abs/1906.00446
    """

    kinds = frozenset({"images", "vectors", "sequences"})
    conditions: ClassVar = {Scores: CONDITION}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the VQ-VAE."""

        codebook_size: Annotated[int, core.Range(2)] = 256
        """Entries of the codebook."""
        code_dim: Positive = 16
        """Length of an entry."""
        decay: core.Fraction = 0.99
        """Decay of the running means that the entries are."""
        commitment: core.NonNegative = 0.25
        """Weight of the squared distance of the encoder's vectors to their entries (beta)."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        places: Positive = 8
        """Entries that make up a code (dense)."""
        hidden: tuple[Positive, ...] = (256, 256)
        """Widths of the hidden layers of the dense encoder, outermost first; the decoder mirrors them."""
        grid: Positive = 8
        """An image is halved until its larger side is at most this; each place then has an entry (conv)."""
        channels: Positive = 32
        """Channels after the first halving (conv); they double with each further one."""
        blocks: Annotated[int, core.Range(0)] = 2
        """Residual blocks of the encoder, and of the decoder (conv)."""
        likelihood: Literal["bernoulli", "gaussian", "logistic", "squared_error"] | None = None
        """p(x|e_k). None: bernoulli for binary images, logistic for 8-bit ones, gaussian for real numbers (scales are
        learned). squared_error, and bernoulli and gaussian on 8-bit images, are losses without a likelihood."""
        prior_start: Annotated[float, core.Range(0, 1, open=True)] = 0.6
        """Share of the budget after which the autoencoder stands still and its prior is trained."""
        prior_width: Positive = 64
        """Features of the prior's transformer."""
        prior_depth: Positive = 3
        """Blocks of the prior's transformer."""
        prior_heads: Positive = 2
        """Attention heads of the prior's transformer; 2 x heads divides the width."""
        prior_dropout: core.Fraction = 0.0
        """Share of features that the prior's training drops."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the autoencoder's weights move."""
        prior_optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the prior's weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        self.observation = Observation(spec, config.likelihood or Observation.natural(spec))
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "dense":
            self.places = config.places
            self.encoder = MLP(spec.shape, (config.places, config.code_dim), config.hidden)
            self.decoder = MLP((config.places, config.code_dim), spec.shape, config.hidden[::-1])
        else:
            sizes = pyramid(*spec.shape[1:], smallest=config.grid)
            self.places = math.prod(sizes[-1])
            of = {"channels": config.channels, "blocks": config.blocks}
            self.encoder = _GridEncoder(sizes, spec.shape[0], config.code_dim, **of)
            self.decoder = _GridDecoder(sizes, spec.shape[0], config.code_dim, **of)
        self.codebook = Codebook(config.codebook_size, config.code_dim, decay=config.decay)
        self.prior_network = NextToken(
            config.codebook_size, config.prior_width, config.prior_depth, config.prior_heads, config.prior_dropout, places=self.places
        )

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Convolutions for images, a few codes for anything else; a smaller codebook and some dropout for few examples."""
        # A move of the prior costs some three times one of the autoencoder: by the clock it needs the larger share.
        start = 0.4 if budget is not None and budget.minutes is not None else 0.6
        config = cls.Config(
            likelihood=Observation.natural(spec),
            prior_start=start,
            optimizer=Optimizer(lr=2e-3, warmup=0.02, decay="cosine", final=0.02),
            prior_optimizer=Optimizer(
                name="muon", lr=2e-3, matrix_lr=2e-2, betas=(0.9, 0.95), warmup=0.02, decay="linear", decay_start=0.3
            ),
        )
        few = 0 < spec.size < 5000
        if few:
            config = dataclasses.replace(config, codebook_size=128, prior_depth=2, prior_dropout=0.1)
        if spec.kind != "images":
            places = max(2, min(8, math.prod(spec.shape)))
            config = dataclasses.replace(config, codebook_size=64, code_dim=8, places=places)
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=60), ema=0.998)
        # Larger images have more to say, and a transformer still reads a grid of 16 x 16.
        config = dataclasses.replace(config, architecture="conv", grid=8 if max(spec.shape[1:]) <= 48 else 16)
        if few:
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        return Recipe(config=config, batch_size=64, budget=budget or Budget(epochs=6), ema=0.998)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which likelihood it is."""
        return (self.observation.note,)

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Scores only where p(x|e_k) is a likelihood of these data."""
        return super().capabilities - ({Scores} if self.observation.space is None else set())

    # ------------------------------------------------------------------------------------------------------ the game

    def players(self) -> tuple[Player, ...]:
        """The autoencoder, and after it the prior of its codes."""
        config, start = self.config, self.config.prior_start
        return (
            Player(
                "autoencoder", self.loss, (self.encoder, self.decoder, self.observation, self.codebook), config.optimizer, span=(0, start)
            ),
            Player("prior", self.prior_loss, (self.prior_network,), config.prior_optimizer, span=(start, 1.0)),
        )

    def loss(self, batch: Batch) -> Loss:
        """The autoencoder's: `reconstruction` and `commitment`; in training mode the codebook follows the batch."""
        z = self._vectors(batch.x)
        if self.training:
            codes, entries = self.codebook.learn(z.detach())
        else:
            codes = self.codebook.nearest(z)
            entries = self.codebook[codes]
        number, _ = perplexity(codes, self.config.codebook_size)
        return Loss(
            {
                "reconstruction": self.observation.nll(self.decoder(straight_through(z, entries)), batch.x).mean(),
                "commitment": (z - entries).square().sum((1, 2)).mean(),
            },
            weights={"commitment": self.config.commitment},
            metrics={"perplexity": number},
        )

    def prior_loss(self, batch: Batch) -> Loss:
        """The prior's: `nll` of the codes of the batch."""
        with torch.no_grad():
            codes = self.codes(batch.x)
        return Loss({"nll": self._code_nll(codes).mean()})

    @property
    def validation(self) -> str:
        """What the bound falls short by: an autoencoder without a prior of its codes is no model of the data."""
        return "bound"

    def validate(self, batch: Batch) -> Float[Tensor, ""]:
        """-log p(x|e_k) - log p(k), in nats per example where p(x|e_k) is a likelihood."""
        return self._negative_bound(batch.x).mean()

    def symptoms(self, batch: Batch) -> dict[str, str]:
        """A codebook of which most is idle."""
        size = self.config.codebook_size
        codes = self.codes(batch.x)
        number, used = perplexity(codes, size)
        # A young encoder says little, whatever its codebook.
        if self.progress < 0.5 * self.config.prior_start or number >= USED * min(size, codes.numel()):
            return {}
        return {
            "idle codebook": f"the codes of {len(codes):,} examples use {int(used.sum())} of {size} entries, as unevenly as if there were "
            f"{float(number):.1f} (perplexity), so that a code says less than it could: take a smaller codebook, shorter entries "
            "(code-dim), or less commitment"
        }

    # --------------------------------------------------------------------------------------------------------- codes

    def codes(self, x: Shaped[Tensor, "batch ..."]) -> Int64[Tensor, "batch places"]:
        """The number of the entry at each place."""
        return self.codebook.nearest(self._vectors(x))

    def _vectors(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch places code_dim"]:
        """What the entries replace."""
        return self.encoder(2 * x - 1 if self.spec.kind == "images" else x)

    def _shifted(self, codes: Int64[Tensor, "batch places"]) -> Int64[Tensor, "batch places"]:
        return F.pad(codes[:, :-1], (1, 0), value=self.config.codebook_size)

    def _code_nll(self, codes: Int64[Tensor, "batch places"]) -> Float[Tensor, " batch"]:
        """-log p(k)."""
        logits = self.prior_network(self._shifted(codes))
        return F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").sum(1)

    def _negative_bound(self, x: Tensor) -> Float[Tensor, " batch"]:
        codes = self.codes(x)
        return self.observation.nll(self.decoder(self.codebook[codes]), x) + self._code_nll(codes)

    def draw_codes(self, n: int, choose: Callable[[Float[Tensor, "n entries"]], Int64[Tensor, " n"]]) -> Int64[Tensor, "n places"]:
        """n rows of entries of the prior, one after the other, each chosen from its logits by `choose`."""
        memory = Memory(self.places, self.config.prior_depth)
        codes = torch.full((n, 1), self.config.codebook_size, device=self.device)
        for _ in range(self.places):
            logits = self.prior_network(codes[:, -1:], memory)[:, -1]
            codes = torch.cat((codes, choose(logits).to(codes.device)[:, None]), 1)
        return codes[:, 1:]

    # -------------------------------------------------------------------------------------------------- capabilities

    def prior(self) -> "EntryPrior":
        """The distribution that the transformer has learned, over flattened rows of entries."""
        return EntryPrior(self)

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The entries of each example, flattened as (place, code_dim). Raises `UsageError` for a label, as all of these do."""
        labels.refuse(label, "a vq_vae")
        return self.codebook[self.codes(x)].flatten(1)

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|e_k), where k are the entries nearest to z: nothing else was ever decoded."""
        labels.refuse(label, "a vq_vae")
        return self.observation.mean(self._output(self.codebook.nearest(self._places(z))))

    def _places(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch places code_dim"]:
        return z.unflatten(1, (self.places, self.config.code_dim))

    def _output(self, codes: Int64[Tensor, "batch places"]) -> Tensor:
        return self.decoder(self.codebook[codes])

    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        mode: Literal["draw", "mean"] | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "n ..."]:
        """n new examples, decoded from codes of the prior.

        Arguments:
            mode: the mean of p(x|e_k) or a draw from it. None: the mean for images, a draw for anything else.
            temperature: the prior's logits are divided by it.
        """
        labels.refuse(label, "a vq_vae")
        core.Range(0, open=True).check("temperature", temperature)
        if self.fitted is not None:
            codes = self.codebook.nearest(self._places(self.fitted.draw(noise, temperature=temperature)))
        else:
            codes = self.draw_codes(n, lambda logits: noise.categorical(probabilities(logits, temperature)))
        output = self._output(codes)
        return self.observation.show(output, noise, mode)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None) -> Likelihood:
        """The bound log p(x|e_k) + log p(k) of the entries that x is encoded to. Raises `UsageError` where p(x|e_k) is no
        likelihood of these data."""
        labels.refuse(label, "a vq_vae")
        space = self.observation.likelihood_space()
        return Likelihood(nats=-self._negative_bound(x), kind="lower bound", space=space)


def straight_through(z: Float[Tensor, "..."], entries: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The value of `entries`, with the gradient of z: d/dz of what follows is its gradient at the entries."""
    return z + (entries - z).detach()


class _Entries(constraints.Constraint):
    """Rows of entries of a codebook, flattened."""

    is_discrete = True
    event_dim = 1


class EntryPrior(Distribution):
    """p(k) as a distribution over flattened rows of entries: discrete, since only these rows have a probability."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = _Entries()

    def __init__(self, model: VQVAE) -> None:
        self._model = model
        super().__init__(event_shape=torch.Size((model.places * model.config.code_dim,)), validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Float[Tensor, "... latent"]:
        """Codes by the global generator."""
        n, model = math.prod(sample_shape), self._model
        parts = [
            model.draw_codes(min(PART, n - start), lambda logits: probabilities(logits).multinomial(1)[:, 0]) for start in range(0, n, PART)
        ]
        codes = torch.cat(parts) if parts else torch.empty(0, model.places, dtype=torch.int64, device=model.device)
        return model.codebook[codes].view(*sample_shape, *self.event_shape)

    @torch.no_grad()
    def log_prob(self, value: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """log p(k) in nats; -inf for what is no row of entries."""
        model = self._model
        z = model._places(value.flatten(0, -2) if value.ndim > 1 else value[None])
        codes = model.codebook.nearest(z)
        entries = model.codebook[codes]
        # Of entries that all but coincide, rounding may find either.
        far = (entries - z).square().sum(-1) > SLACK * entries.square().sum(-1).mean()
        return (-model._code_nll(codes)).masked_fill(far.any(1), -math.inf).view(value.shape[:-1])
