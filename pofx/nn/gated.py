"""Gated convolutions that see the pixels above and to the left alone: over whole images, or pixel by pixel from a memory of rows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.conditioning import Embedding
from pofx.nn.dropout import Dropout
from pofx.nn.levels import Levels


class CausalConv(nn.Linear):
    """A convolution over a window that ends in the row of its place: `rows` rows up to that one, columns from `left` before to `right`
    behind it.

    What a mask would set to 0 is not computed. The weights are one matrix (features, rows x columns x inputs), so that optimizers
    of matrices move it, and one place costs one product.
    """

    def __init__(self, inputs: int, features: int, rows: int, left: int, right: int) -> None:
        super().__init__(rows * (left + 1 + right) * inputs, features)
        self.window, self.padding = (rows, left + 1 + right), (left, right, rows - 1, 0)

    def valid(self, x: Float[Tensor, "batch rows columns inputs"]) -> Float[Tensor, "batch height width features"]:
        """The places whose windows lie inside x."""
        kernel = self.weight.view(self.out_features, *self.window, -1).permute(0, 3, 1, 2)
        return F.conv2d(x.permute(0, 3, 1, 2), kernel, self.bias).permute(0, 2, 3, 1)

    def pad(self, x: Float[Tensor, "batch height width inputs"]) -> Float[Tensor, "batch rows columns inputs"]:
        """x with zeros where windows reach beyond it."""
        return F.pad(x, (0, 0, *self.padding))

    def forward(self, x: Float[Tensor, "batch height width inputs"]) -> Float[Tensor, "batch height width features"]:
        """Every place of an image."""
        return self.valid(self.pad(x))


class _Block(nn.Module):
    """One residual layer of both stacks: v sees rows up to its own, h the columns up to its own in its row, and what v says of them.

    v' = v + V * silu(v),  h' = h + a sigmoid(b),  a, b = A * s, B * s  with s = silu(h + v')
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        reach = kernel // 2
        self.vertical = CausalConv(width, width, reach + 1, reach, reach)
        # Two layers and not the halves of one: on a CPU arithmetic on halves of bfloat16 numbers takes five times as long.
        self.value, self.gate = (CausalConv(width, width, 1, reach, 0) for _ in range(2))
        self.dropout = Dropout(dropout) if dropout else None
        # Branches that start at zero leave the gradient of a deep stack undisturbed.
        for layer in (self.vertical, self.value):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def down(self, v: Tensor, window: Tensor) -> Tensor:
        """v' of some rows from v and silu(v) of their windows."""
        change = self.vertical.valid(window)
        return v + (change if self.dropout is None else self.dropout(change))

    def right(self, h: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        """h' from h, a and b."""
        change = value * gate.sigmoid()
        return h + (change if self.dropout is None else self.dropout(change))

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        v = self.down(v, self.vertical.pad(F.silu(v)))
        seen = self.value.pad(F.silu(h + v))
        return v, self.right(h, self.value.valid(seen), self.gate.valid(seen))


class GatedPixels(Network):
    """What a pixel may be, from those before it in raster order: a stack that reads the rows above, and one that reads the row itself.

    Two stacks leave no blind spot, which a stack of masked convolutions has to the right; and of the first one all pixels of a
    row are computed at once.

    Arguments:
        shape: (channels, height, width) of an image.
        head: makes distributions of levels of the features of pixels.
        width: features of a pixel in both stacks. depth: blocks. kernel, first: sides of the windows of which masks would leave the
            upper half, those of the blocks and of the first layer; odd, from 3 on.
        dropout: share of a block's features that training silences.
        context: length of the vector of a label; 0 for none.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), https://arxiv.org/abs/1606.05328
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        head: Levels,
        *,
        width: int,
        depth: int,
        kernel: int,
        first: int,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.width, self.head = shape, width, head
        channels, height, columns = shape
        reach = first // 2
        # Of a pixel also that it is one, which the zeros around an image are not.
        self.above = CausalConv(channels + 1, width, reach, reach, reach)
        self.before = CausalConv(channels + 1, width, 1, reach - 1, 0)
        self.place = nn.Parameter(torch.zeros(2, height, columns, width))
        self.told = Embedding(context, 2 * width) if context else None
        self.blocks = nn.ModuleList(_Block(width, kernel, dropout) for _ in range(depth))

    def _start(self, context: Tensor | None) -> Tensor:
        """What both stacks know of places and labels: (2, batch or 1, height, width, features)."""
        place = self.place[:, None]
        if self.told is None or context is None:
            return place
        return place + self.told(context.to(place.dtype)).unflatten(1, (2, -1)).transpose(0, 1)[:, :, None, None]

    def compute(
        self, x: Float[Tensor, "batch channels height width"], context: Float[Tensor, "batch context"] | None = None
    ) -> Float[Tensor, "batch height width outputs"]:
        """The head's outputs for whole images with pixels in [0, 1]."""
        return self.head(self.features(x, context), x.permute(0, 2, 3, 1))

    def features(
        self, x: Float[Tensor, "batch channels height width"], context: Tensor | None
    ) -> Float[Tensor, "batch height width features"]:
        """Of every pixel, from those before it."""
        seen = _seen(x.permute(0, 2, 3, 1))
        # One row down and one column to the right: no pixel sees itself.
        v = self.above(F.pad(seen, (0, 0, 0, 0, 1, -1)))
        h = self.before(F.pad(seen, (0, 0, 1, -1)))
        # What is added first decides in which order all that follows lies in memory, and a model in channels-last memory takes the rows of
        # `place` for channels.
        start = self._start(context).to(v.dtype).contiguous()
        v, h = v + start[0], h + start[1]
        for block in self.blocks:
            v, h = block(v, h)
        return F.silu(h)

    def raster(self, n: int, context: Float[Tensor, "n context"] | None = None) -> "Raster":
        """A memory of n images of which no pixel is there yet."""
        return Raster(self, n, context)


def _seen(x: Tensor) -> Tensor:
    """Pixels (..., channels) as the first layer sees them: in [-1, 1], and a one."""
    return torch.cat((2 * x - 1, torch.ones_like(x[..., :1])), -1)


class Raster:
    """Features of the pixels of n images in raster order, each from those that it was given before; computed once each.

    It belongs to one call that draws. For each layer it keeps as many rows of the stack of rows as a window has, and the row of
    the other one; in the precision of the weights.

    Arguments:
        context: of the labels, one an image.
    """

    def __init__(self, network: GatedPixels, n: int, context: Float[Tensor, "n context"] | None = None) -> None:
        self.network, self.n = network, n
        self.start = network._start(context)
        channels, self.height, self.columns = network.shape
        self._blocks: list[_Block] = list(network.blocks)  # type: ignore[arg-type]
        self._pixels = self._rows(network.above, channels + 1)
        self._above = [self._rows(block.vertical, network.width) for block in self._blocks]
        self._row = self._pixels.new_zeros(0)

    def _rows(self, layer: CausalConv, features: int) -> Tensor:
        left, right, *_ = layer.padding
        return layer.weight.new_zeros(self.n, layer.window[0], left + self.columns + right, features)

    def row(self, i: int, above: Float[Tensor, "n channels columns"] | None) -> Callable[[int, Tensor | None], Float[Tensor, "n features"]]:
        """Begins row i, given the pixels of the row above it (None in the first one). The function that it returns gives, column
        after column, the features of each pixel, given the one to its left (None in the first one): (n, channels)."""
        network = self.network

        def push(rows: Tensor, layer: CausalConv, new: Tensor) -> Tensor:
            rows[:, :-1] = rows[:, 1:].clone()
            rows[:, -1, layer.padding[0] : layer.padding[0] + self.columns] = new
            return rows

        if above is not None:
            push(self._pixels, network.above, _seen(above.transpose(1, 2)))
        v = self.start[0, :, i : i + 1] + network.above.valid(self._pixels)
        stack = []
        for block, rows in zip(self._blocks, self._above, strict=True):
            v = block.down(v, push(rows, block.vertical, F.silu(v[:, 0])))
            stack.append(v[:, 0])
        reach, own = self._blocks[0].value.padding[0], network.before.padding[0]
        lines = v.new_zeros(len(stack), self.n, reach + self.columns, network.width)
        pixels = v.new_zeros(self.n, own + self.columns, network.shape[0] + 1)

        def pixel(j: int, left: Tensor | None) -> Tensor:
            if left is not None:
                pixels[:, own + j] = _seen(left)
            h = self.start[1, :, i, j] + _product(network.before, pixels[:, j : own + j + 1].flatten(1))
            for block, line, v in zip(self._blocks, lines, stack, strict=True):
                line[:, reach + j] = F.silu(h + v[:, j])
                seen = line[:, j : reach + j + 1].flatten(1)
                h = block.right(h, _product(block.value, seen), _product(block.gate, seen))
            return F.silu(h)

        return pixel


def _product(layer: CausalConv, window: Tensor) -> Tensor:
    """A layer at one place, from what its window holds."""
    return F.linear(window, layer.weight, layer.bias)
