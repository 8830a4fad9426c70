"""The autoencoder: squeeze data through a code and learn to undo it.

    minimise over encoder e and decoder d    E 1/2 ||x - d(e(x))||^2

What fits through the code is what the data have in common. The codes have no law of their own; while training, the
model keeps their mean and covariance, and drawing a code from that Gaussian and decoding it gives new data.
"""

import dataclasses
import math
from typing import Annotated, Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from pofx import core
from pofx.core import Batch, Budget, DataSpec, Decodes, Encodes, Loss, Model, Noise, Optimizer, Positive, Range, Recipe, Samples, UsageError
from pofx.nn.conv import LARGE, ConvDecoder, ConvEncoder, PoolingEncoder, UpsamplingDecoder, code_shape
from pofx.nn.mlp import MLP
from pofx.nn.moments import RunningGaussian
from pofx.nn.observation import Observation


class Autoencoder(Model, Samples, Encodes, Decodes):
    """An encoder and a decoder with a narrow code between them.

    The loss term `reconstruction` is 1/2 ||x - d(e(x))||^2 per example (nats under a Gaussian of variance one, up to a
    constant) or the cross-entropy in nats per example; in tables, categories and missing indicators are cross-entropies.

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006),
        https://doi.org/10.1126/science.1127647
        Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction (Masci et al., 2011),
        https://doi.org/10.1007/978-3-642-21735-7_7
    """

    kinds = frozenset({"images", "vectors", "sequences"})

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
        reconstruction: Literal["squared_error", "cross_entropy"] = "squared_error"
        """What is minimised; cross_entropy is for images."""
        dropout: Annotated[float, Range(0, 0.9)] = 0.0
        """Share of the encoder's hidden units that training silences (of the last layer's features for conv)."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.latent_dim is None and self.architecture == "dense":
                raise UsageError(
                    "latent-dim None is the spatial code of the conv architecture: give a number, or --model.architecture conv"
                )

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.observation = Observation(spec, "bernoulli" if config.reconstruction == "cross_entropy" else "squared_error")
        if config.architecture == "conv" and spec.kind != "images":
            raise UsageError(f"architecture conv is for images, and these data are {spec.kind}: choose dense")
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "dense":
            code = config.latent_dim or 0
            self.encoder = MLP(spec.shape, code, config.hidden, dropout=config.dropout)
            self.decoder = MLP(code, spec.shape, config.hidden[::-1])
        elif config.latent_dim is None:
            code = math.prod(code_shape(spec.shape, config.channels))
            self.encoder = PoolingEncoder(spec.shape, channels=config.channels)
            self.decoder = UpsamplingDecoder(spec.shape, channels=config.channels)
        else:
            code = config.latent_dim
            self.encoder = ConvEncoder(spec.shape, code, channels=config.channels, dropout=config.dropout)
            self.decoder = ConvDecoder(code, spec.shape, channels=config.channels)
        self.codes = RunningGaussian(code)

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

    def loss(self, batch: Batch) -> Loss:
        """E of the reconstruction; in training mode it also follows the mean and covariance of the codes."""
        z = self.encoder(batch.x)
        if self.training:
            self.codes.follow(z.detach())
        return Loss({"reconstruction": self.observation.nll(self.decoder(z), batch.x).mean()})

    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """The code of each example; a spatial one flattened as (channels, height, width)."""
        return self.encoder(x)

    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Float[Tensor, "batch ..."]:
        """The data that each code stands for."""
        return self.observation.mean(self.decoder(z))

    def prior(self) -> Distribution:
        """The Gaussian with the mean and covariance of the training codes."""
        return self.codes.distribution()

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0) -> Shaped[Tensor, "n ..."]:
        """Decodes n codes drawn from `prior()`.

        Arguments:
            temperature: multiplies the standard deviation of the codes.
        """
        if label is not None:
            raise UsageError("an autoencoder knows no labels: leave the label out")
        return self.decode(self.codes.draw(noise, temperature=temperature))
