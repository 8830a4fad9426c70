"""Self-attention: a causal transformer over sequences, with rotary positions and a memory for fast decoding; and over images."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.core import UsageError
from pofx.nn.dropout import Dropout

#: Positions up to which attention that is written out beats the fused kernel for bfloat16 on a CPU, forwards and backwards: 5.7
#: milliseconds become 2.1 at 64 positions, 25 become 18 at 256.
SHORT = 256


def normalise(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """Layer normalisation over the last axis, without a learned scale or shift.

    The linear layer that follows can learn both. (RMS norm, which keeps the mean, has no fused kernel on a CPU and
    costs four times as much there.)

    References:
        Layer Normalization, Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450
    """
    return F.layer_norm(x, x.shape[-1:])


class Rotation(NamedTuple):
    """Angles of some positions, by which queries and keys are turned.

    cos, sin: (time, features), in float32 or wider; both halves of the features have the same angles, and the sine of the first
        half is negated.
    """

    cos: Float[Tensor, "time features"]
    sin: Float[Tensor, "time features"]

    @classmethod
    def at(cls, start: int, stop: int, features: int, like: Tensor) -> "Rotation":
        """Rotation of the positions [start, stop) for heads of `features` features, on the device of `like`."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        frequency = 10_000.0 ** -(torch.arange(0, features, 2, device=like.device, dtype=dtype) / features)
        angle = torch.outer(torch.arange(start, stop, device=like.device, dtype=dtype), frequency)
        sin = angle.sin()
        return cls(angle.cos().repeat(1, 2), torch.cat((-sin, sin), 1))

    def part(self, start: int, stop: int) -> "Rotation":
        """That of some of the positions, counted from the first one."""
        return Rotation(self.cos.narrow(0, start, stop - start), self.sin.narrow(0, start, stop - start))

    def turn(self, x: Float[Tensor, "batch time ... features"]) -> Float[Tensor, "batch time ... features"]:
        """Turns each pair (i, i + features / 2) of x by the angle of its position, so that products of queries and keys
        depend on the distance of their positions alone.

        References:
            RoFormer: Enhanced Transformer with Rotary Position Embedding, Su et al., 2021, https://arxiv.org/abs/2104.09864
        """
        time, features = self.cos.shape
        cos, sin = self if x.dtype == self.cos.dtype else (self.cos.to(x.dtype), self.sin.to(x.dtype))
        if time > 1:  # a single position's angles fit any place
            shape = (time, *[1] * (x.dim() - 3), features)
            cos, sin = cos.view(shape), sin.view(shape)
        return torch.addcmul(x * cos, x.roll(features // 2, -1), sin)


class Memory:
    """Keys and values of the positions that a transformer has read, so that the next one costs one position.

    It belongs to one call that decodes; a model keeps none.

    Arguments:
        capacity: the most positions it will hold.
        depth: layers of the transformer.

    Attributes:
        length: positions that it holds. recent: the last tokens that were read, for a network that looks back at them.
    """

    def __init__(self, capacity: int, depth: int) -> None:
        self.capacity, self.length = capacity, 0
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * depth
        self.recent: Int64[Tensor, "batch back"] | None = None
        self._rotation: Rotation | None = None

    def rotation(self, time: int, features: int, like: Tensor) -> Rotation:
        """Of the next `time` positions."""
        if self._rotation is None:
            self._rotation = Rotation.at(0, self.capacity, features, like)
        return self._rotation.part(self.length, self.length + time)

    def extend(
        self, layer: int, key: Float[Tensor, "batch heads time features"], value: Float[Tensor, "batch heads time features"]
    ) -> tuple[Float[Tensor, "batch heads past features"], Float[Tensor, "batch heads past features"]]:
        """Keys and values of all positions of a layer, the new ones appended; `length` is moved by the transformer."""
        held = self._layers[layer]
        if held is None:
            batch, heads, _, features = key.shape
            size = (batch, heads, self.capacity, features)
            held = self._layers[layer] = key.new_empty(size), key.new_empty(size)
        time = key.shape[2]
        keys, values = held
        keys.narrow(2, self.length, time).copy_(key)
        values.narrow(2, self.length, time).copy_(value)
        return keys.narrow(2, 0, self.length + time), values.narrow(2, 0, self.length + time)


def attend(
    query: Float[Tensor, "batch heads time features"],
    key: Float[Tensor, "batch heads time features"],
    value: Float[Tensor, "batch heads time features"],
) -> Float[Tensor, "batch heads time features"]:
    """Causal attention written out: softmax(Q K^T / sqrt(features)) V over each position and those before it."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)
    later = torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    return (scores + later).softmax(-1) @ value


class CausalAttention(nn.Module):
    """Multi-head attention in which a position sees itself and those before it.

    Queries and keys are normalised, so that their products stay bounded at large learning rates, then turned by their
    positions.

    Arguments:
        width: features in and out.
        heads: a divisor of width; width / heads is even.

    References:
        Attention Is All You Need, Vaswani et al., 2017, https://arxiv.org/abs/1706.03762
        Query-Key Normalization for Transformers, Henry et al., 2020, https://arxiv.org/abs/2010.04245
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise UsageError(
                f"a width of {width} does not divide into {heads} heads of an even number of features: choose a multiple of {2 * heads}"
            )
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotation: Rotation, memory: Memory | None = None, layer: int = 0
    ) -> Float[Tensor, "batch time width"]:
        """What each position of x gathers from itself, from those before it and from those in `memory` at `layer`."""
        batch, time, width = x.shape
        packed = self.project_in(x).view(batch, time, 3, self.heads, width // self.heads)
        query, key = rotation.turn(normalise(packed[:, :, :2]).to(packed.dtype)).transpose(1, 3).unbind(2)
        value = packed[:, :, 2].transpose(1, 2)
        seen = None
        if memory is not None:
            key, value = memory.extend(layer, key, value)
            if time > 1 and memory.length:
                seen = torch.ones(time, key.shape[2], dtype=torch.bool, device=x.device).tril(memory.length)
        # With an empty memory this is plain causal attention; a single new position sees everything that is held.
        causal = seen is None and time == key.shape[2]
        if causal and time <= SHORT and query.dtype == torch.bfloat16 and query.device.type == "cpu":
            mixed = attend(query, key, value)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=causal)
        return self.project_out(mixed.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    """Pre-norm residual block: attention, then two dense layers with a GELU between; it starts as the identity.

    Arguments:
        width: features in and out.
        heads: attention heads.
        dropout: share of features of each branch that are dropped in training.

    References:
        Language Models are Unsupervised Multitask Learners, Radford et al., 2019 (section 2.3),
            https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
        Gaussian Error Linear Units (GELUs), Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = CausalAttention(width, heads)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        self.dropout = Dropout(dropout)
        # Branches that start at zero leave the gradient of a deep stack undisturbed.
        nn.init.zeros_(self.attention.project_out.weight)
        nn.init.zeros_(self.narrow.weight)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotation: Rotation, memory: Memory | None = None, layer: int = 0
    ) -> Float[Tensor, "batch time width"]:
        """x and what both branches add to it; `memory` and `layer` as in `CausalAttention`."""
        x = x + self.dropout(self.attention(normalise(x), rotation, memory, layer))
        # By tanh it would take two or three times as long on a CPU.
        return x + self.dropout(self.narrow(F.gelu(self.widen(normalise(x)))))


class CausalTransformer(nn.Module):
    """A stack of blocks between embeddings and a head; its output is normalised.

    Arguments:
        width: features in and out.
        depth: blocks.
        heads: attention heads of each block.
        dropout: share of features dropped from the input and from each branch, in training.
    """

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = width // heads
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))

    def forward(self, x: Float[Tensor, "batch time width"], memory: Memory | None = None) -> Float[Tensor, "batch time width"]:
        """Reads x at the positions after those in `memory`, and adds them to it."""
        time = x.shape[1]
        rotation = Rotation.at(0, time, self.features, x) if memory is None else memory.rotation(time, self.features, x)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, memory, layer)
        if memory is not None:
            memory.length += time
        return normalise(x)


class ImageAttention(nn.Module):
    """Every place of an image's features gathers from all places, and adds that to its own; it starts as the identity.

    Arguments:
        channels: of the features.

    References:
        Self-Attention Generative Adversarial Networks (Zhang et al., 2019), https://arxiv.org/abs/1805.08318
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.keys, self.values = max(1, channels // 8), max(1, channels // 2)
        self.project_in = nn.Linear(channels, 2 * self.keys + self.values)
        self.project_out = nn.Linear(self.values, channels)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """x and what its places have gathered."""
        places = x.permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = self.project_in(places).split((self.keys, self.keys, self.values), 2)
        # Written out: fused kernels cannot be differentiated twice, which a penalty on the discriminator's slope needs.
        weights = (query @ key.transpose(1, 2) * self.keys**-0.5).softmax(2)
        gathered = self.project_out(weights.to(value.dtype) @ value).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + gathered
