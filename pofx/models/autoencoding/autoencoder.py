"""The autoencoder: squeeze data through a code and learn to undo it.

    minimise over encoder e and decoder d    E 1/2 ||x - d(e(x))||^2 + penalty(e, x)

What fits through the code is what the data have in common. A penalty can make the code sparse or insensitive to x; fed
with x under noise, it learns to take the noise away. The codes have no law of their own; while training, the model keeps
their mean and covariance, and drawing a code from that Gaussian and decoding it gives new data. A density that is fitted to
the codes later (`pofx fit-prior`) gives better ones.
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
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Decodes,
    Denoises,
    Encodes,
    Loss,
    Model,
    Noise,
    NonNegative,
    Optimizer,
    Positive,
    PositiveFloat,
    Range,
    Recipe,
    Samples,
    UsageError,
)
from pofx.nn import labels
from pofx.nn.conv import LARGE, ConvDecoder, ConvEncoder, PoolingEncoder, UpsamplingDecoder, code_shape
from pofx.nn.corruption import corrupt
from pofx.nn.foreign import Foreign
from pofx.nn.mlp import MLP, Activation
from pofx.nn.moments import RunningGaussian
from pofx.nn.observation import Observation

EXACT = 16
"""Codes up to this length have an exact contractive penalty by default, longer ones an estimated one."""
CONSTANT, DEAD = 1e-12, 0.95
"""Variance of a unit that says nothing, and the share of such units from which on a code is dead."""


class Autoencoder(Model, Samples, Encodes, Decodes, Denoises):
    """An encoder and a decoder with a narrow code between them.

    The loss term `reconstruction` is 1/2 ||x - d(e(x))||^2 per example (nats under a Gaussian of variance one, up to a
    constant) or the cross-entropy in nats per example; in tables, categories and missing indicators are cross-entropies.
    `sparsity` is the L1 norm of the code, or a divergence of mean activities in nats; `contraction` is E ||de/dx||_F^2.

    With `noise`, e sees x under noise, and the model is measured by the clean x, in validation too (under noise that is
    fixed there), as that is what it is for. The Gaussian of the codes is that of those that the decoder met.

    Arguments:
        encoder: a network of one's own from (batch, *shape) to (batch, code), in place of the one that the config describes.
        decoder: one from (batch, code) to (batch, *shape): logits where a sigmoid or softmax belongs to the data.

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006),
        https://doi.org/10.1126/science.1127647
        Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction (Masci et al., 2011),
        https://doi.org/10.1007/978-3-642-21735-7_7
        k-Sparse Autoencoders (Makhzani and Frey, 2013), https://arxiv.org/abs/1312.5663
        Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising Criterion
        (Vincent et al., 2010), https://jmlr.org/papers/v11/vincent10a.html
        Contractive Auto-Encoders: Explicit Invariance During Feature Extraction (Rifai et al., 2011),
        https://icml.cc/2011/papers/455_icmlpaper.pdf
    """

    stopgap = "a Gaussian fitted to the training codes"
    kinds = frozenset({"images", "vectors", "sequences"})
    conditions: ClassVar = {Denoises: "train one with --model.noise gaussian, masking or salt_and_pepper"}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the autoencoder."""

        latent_dim: Positive | None = 32
        """Length of the code. None, for conv only: the spatial code of two 2x2 poolings, 7 x 7 x channels at 28 x 28."""
        architecture: Literal["dense", "conv"] = "dense"
        """dense: fully connected layers; conv: convolutions, for images only."""
        hidden: tuple[Positive, ...] = (512, 256)
        """Widths of the hidden layers of the dense encoder, outermost first; the decoder mirrors them."""
        channels: Positive = 32
        """Channels of the first convolution (conv)."""
        activation: Activation | None = None
        """Non-linearity of the hidden layers. None: silu, and relu around the spatial code."""
        code_activation: Literal["linear", "relu", "sigmoid", "tanh"] | None = None
        """Non-linearity of the code. None: relu for the spatial code, sigmoid under sparsity kl, else linear."""
        reconstruction: Literal["squared_error", "cross_entropy"] = "squared_error"
        """What is minimised; cross_entropy is for images."""
        dropout: Annotated[float, Range(0, 0.9)] = 0.0
        """Share of the encoder's hidden units that training silences (of the last layer's features for conv, of the code where that is spatial)."""
        sparsity: Literal["none", "l1", "kl", "top_k"] = "none"
        """l1: small codes; kl: mean activities near a target; top_k: all but the k largest numbers of a code are set to 0."""
        sparsity_weight: NonNegative = 1.0
        """Weight of the penalty (l1, kl)."""
        sparsity_target: Annotated[float, Range(0, 1, open=True)] = 0.05
        """Mean activity over examples that each unit of a sigmoid or relu code should have (kl)."""
        k: Positive = 8
        """Numbers of a code that stay (top_k)."""
        noise: Literal["none", "gaussian", "masking", "salt_and_pepper"] = "none"
        """Noise that the encoder's input gets and the output must not have; salt_and_pepper is for images."""
        noise_strength: PositiveFloat = 0.5
        """Standard deviation of gaussian noise (images are cut off at 0 and 1); share of the elements set to 0 (masking), or to
        0 or 1 (salt_and_pepper)."""
        contractive: NonNegative = 0.0
        """Weight of the squared norm of the Jacobian of the code, ||de/dx||_F^2, its sensitivity."""
        projections: Positive | None = None
        """Random projections that estimate this norm. None: it is exact for codes up to 16 numbers, from 4 projections for longer ones."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.sparsity == "kl" and self.code_activation in ("linear", "tanh"):
                raise UsageError(
                    f"sparsity kl compares activities, which are not negative, and a {self.code_activation} code may be: "
                    "choose --model.code-activation sigmoid or relu"
                )
            if self.noise in ("masking", "salt_and_pepper") and self.noise_strength > 1:
                raise UsageError(f"noise-strength is a share of the elements for {self.noise}, so at most 1, not {self.noise_strength:g}")
            if self.latent_dim is None and self.architecture == "dense":
                raise UsageError(
                    "latent-dim None is the spatial code of the conv architecture: give a number, or --model.architecture conv"
                )

    def __init__(self, spec: DataSpec, config: Config, *, encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        super().__init__(spec, config)
        self.observation = Observation(spec, "bernoulli" if config.reconstruction == "cross_entropy" else "squared_error")
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        if config.noise == "salt_and_pepper" and spec.kind != "images":
            raise UsageError(f"salt_and_pepper is noise of images, and these data are {spec.kind}: choose gaussian or masking")
        code = config.latent_dim or math.prod(code_shape(spec.shape, config.channels))
        if config.sparsity == "top_k" and config.k > code:
            raise UsageError(f"k must be at most the {code} numbers of the code, not {config.k}")
        spatial, sigmoid = config.latent_dim is None, config.sparsity == "kl"
        self.code_activation = config.code_activation or ("sigmoid" if sigmoid else "relu" if spatial else "linear")
        self.encoder = self._encoder(code) if encoder is None else Foreign(encoder, "encoder", spec.shape, (code,))
        self.decoder = self._decoder(code) if decoder is None else Foreign(decoder, "decoder", (code,), spec.shape)
        self.codes = RunningGaussian(code)

    def _encoder(self, code: int) -> nn.Module:
        config, shape = self.config, self.spec.shape
        activation: Activation = config.activation or ("relu" if config.latent_dim is None else "silu")
        if config.architecture == "dense":
            return MLP(shape, code, config.hidden, activation=activation, dropout=config.dropout)
        if config.latent_dim is None:
            return PoolingEncoder(shape, channels=config.channels, activation=activation, last=False, dropout=config.dropout)
        return ConvEncoder(shape, code, channels=config.channels, activation=activation, dropout=config.dropout)

    def _decoder(self, code: int) -> nn.Module:
        config, shape = self.config, self.spec.shape
        activation: Activation = config.activation or ("relu" if config.latent_dim is None else "silu")
        if config.architecture == "dense":
            return MLP(code, shape, config.hidden[::-1], activation=activation)
        if config.latent_dim is None:
            return UpsamplingDecoder(shape, channels=config.channels, activation=activation)
        return ConvDecoder(code, shape, channels=config.channels, activation=activation)

    @property
    def capabilities(self) -> frozenset[type[core.Capability]]:
        """Denoises only where it was trained on noise."""
        return super().capabilities - ({Denoises} if self.config.noise == "none" else set())

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """A dense autoencoder, as wide as the data ask for, or convolutions for large images; some thousands of moves."""
        decay = {"decay": "cosine", "final": 0.01, "warmup": 0.02}
        if spec.kind != "images":
            config = cls.Config(
                latent_dim=max(1, min(16, (math.prod(spec.shape) + 1) // 2)), hidden=(256, 256), optimizer=Optimizer(lr=1e-3, **decay)
            )
            return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=40))
        if math.prod(spec.shape) > LARGE:
            config = cls.Config(latent_dim=64, architecture="conv", optimizer=Optimizer(lr=1e-3, **decay))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=3000), ema=0.998)
        if 0 < spec.size < 5000:
            # Few images are soon learned by heart: some dropout, and the best validation score decides. Large ones
            # cost so much more that a third of the moves must do.
            steps = 4500 if math.prod(spec.shape) <= 4096 else 1500
            config = cls.Config(latent_dim=32, hidden=(512, 256), dropout=0.1, optimizer=Optimizer(lr=1e-3, **decay))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(steps=steps), ema=0.99)
        config = cls.Config(latent_dim=32, optimizer=Optimizer(lr=2e-3, **decay))
        return Recipe(config=config, batch_size=256, budget=budget or Budget(epochs=30))

    # ----------------------------------------------------------------------------------------------------- training

    def loss(self, batch: Batch) -> Loss:
        """The reconstruction and the penalties on the code; in training mode it also follows the codes' mean and covariance."""
        config = self.config
        x = batch.x
        if config.noise != "none":
            x = self._corrupted(x, torch.randn_like(x) if config.noise == "gaussian" else torch.rand_like(x))
        terms: dict[str, Tensor] = {}
        if config.contractive:
            z, terms["contraction"] = self._contracted(x)
        else:
            z = self.encode(x)
        if config.sparsity == "l1":
            terms["sparsity"] = z.abs().sum(1).mean()
        elif config.sparsity == "kl":
            divergence = losses.bernoulli_activity_kl if self.code_activation == "sigmoid" else losses.exponential_activity_kl
            terms["sparsity"] = divergence(z.mean(0), config.sparsity_target)
        if self.training:
            self.codes.follow(z.detach())
        reconstruction = self.observation.nll(self.decoder(z), batch.x).mean()
        weights = {"sparsity": config.sparsity_weight, "contraction": config.contractive}
        return Loss({"reconstruction": reconstruction, **terms}, weights={name: weights[name] for name in terms})

    def _contracted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes and their contractive penalty, which takes gradients in validation, too."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            z = self.encode(x)
            projections = self.config.projections or (None if z.shape[1] <= EXACT else 4)
            penalty = losses.jacobian_norm(z, x, projections=projections)
        return (z, penalty) if wanted else (z.detach(), penalty.detach())

    def _corrupted(self, x: Tensor, random: Tensor) -> Tensor:
        return corrupt(x, random, self.config.noise, self.config.noise_strength, images=self.spec.kind == "images")

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """A code that says nothing, as strong penalties and rectified units that died make it."""
        z = self.encode(batch.x)
        alive = int((z.var(0) > CONSTANT).sum())
        if len(z) < 2 or alive > (1 - DEAD) * z.shape[1]:
            return {}
        return {
            "dead code": f"{alive} of {z.shape[1]} numbers of the code vary with x, so that reconstructions are all alike: "
            "weaken the penalties on the code, lower the learning rate, or take a linear code"
        }

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The code of each example; a spatial one flattened as (channels, height, width)."""
        labels.refuse(label, "an autoencoder")
        z = self.encoder(x)
        match self.code_activation:
            case "relu":
                z = z.relu()
            case "sigmoid":
                z = z.sigmoid()
            case "tanh":
                z = z.tanh()
        return self._largest(z)

    def _largest(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """The code with all but its k largest numbers set to 0 (top_k); others as they are."""
        if self.config.sparsity != "top_k":
            return z
        largest, where = z.topk(self.config.k, dim=1)
        return torch.zeros_like(z).scatter(1, where, largest)

    def denoise(self, x: Tensor) -> Float[Tensor, "batch ..."]:
        """decode(encode(x)): what an encoder that has seen noisy data alone makes of them."""
        return self.decode(self.encode(x))

    def corrupt(self, x: Tensor, *, noise: Noise) -> Float[Tensor, "batch ..."]:
        """x under the noise of the config."""
        shape = x.shape[1:]
        return self._corrupted(x, noise.normal(*shape) if self.config.noise == "gaussian" else noise.uniform(*shape))

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The data that each code stands for."""
        labels.refuse(label, "an autoencoder")
        return self.observation.mean(self.decoder(z))

    def prior(self) -> Distribution:
        """The Gaussian with the mean and covariance of the training codes."""
        return self.codes.distribution()

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0) -> Shaped[Tensor, "n ..."]:
        """Decodes n codes drawn from `prior()`, or from the prior that was fitted later, and brought to where codes lie: a
        relu code is not negative, say.

        Arguments:
            temperature: multiplies the standard deviation of the codes.
        """
        labels.refuse(label, "an autoencoder")
        z = (self.fitted or self.codes).draw(noise, temperature=temperature)
        low, high = {"relu": (0.0, math.inf), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}.get(self.code_activation, (-math.inf, math.inf))
        return self.decode(self._largest(z.clamp(low, high)))
