"""Recurrent cells: read a sequence element by element, and remember in a state of fixed size."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pofx.nn.dropout import Dropout

Cell = Literal["lstm", "gru", "plain"]


def recurrent(cell: Cell, width: int, hidden: int, *, bidirectional: bool = False) -> nn.LSTM | nn.GRU | nn.RNN:
    """The cell by name; the forget gates of an LSTM start open, so that it remembers before it has learned to.

    lstm: i, f, o = sigmoid(W x + U h + b), c' = f c + i tanh(W x + U h + b), h' = o tanh(c'). gru: two gates and no c.
    plain: h' = tanh(W x + U h + b).

    References:
        Finding Structure in Time (Elman, 1990), https://doi.org/10.1207/s15516709cog1402_1
        Long Short-Term Memory (Hochreiter and Schmidhuber, 1997), https://doi.org/10.1162/neco.1997.9.8.1735
        Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation (Cho et al., 2014),
            https://arxiv.org/abs/1406.1078
        An Empirical Exploration of Recurrent Network Architectures (Jozefowicz et al., 2015),
            https://proceedings.mlr.press/v37/jozefowicz15.html
    """
    if cell == "gru":
        return nn.GRU(width, hidden, batch_first=True, bidirectional=bidirectional)
    if cell == "plain":
        return nn.RNN(width, hidden, batch_first=True, bidirectional=bidirectional)
    lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias_ih"):
                # The gates stand as input, forget, cell, output.
                bias[hidden : 2 * hidden] += 1.0
    return lstm


class Carried:
    """What a recurrent network remembers between the elements of one call; a model keeps none.

    state: of its cells. recent: the last symbols that it has read, where it looks at runs of them; None: nothing was read.
    """

    def __init__(self, state: Tensor | tuple[Tensor, Tensor] | None = None, recent: Tensor | None = None) -> None:
        self.state, self.recent = state, recent


class RecurrentStack(nn.Module):
    """Layers of one cell on top of each other, each of which reads what is below, normalised, and adds to it.

    Its state is one float32 row of `state` numbers an example; all zeros before the first element.

    Arguments:
        width: features in, out, and of the cells.
        depth: layers.
        dropout: share of features dropped from the input and from what each layer adds, in training.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016), https://arxiv.org/abs/1512.03385
        Recurrent Neural Network Regularization (Zaremba et al., 2014), https://arxiv.org/abs/1409.2329
    """

    def __init__(self, cell: Cell, width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(recurrent(cell, width, width) for _ in range(depth))
        self.dropout = Dropout(dropout)
        #: Parts of a layer's state: h, and the c of an LSTM.
        self.shape = (depth, 2 if cell == "lstm" else 1, width)

    @property
    def state(self) -> int:
        """Numbers of an example's state."""
        depth, parts, width = self.shape
        return depth * parts * width

    def forward(self, x: Float[Tensor, "batch time width"], carried: Carried | None = None) -> Float[Tensor, "batch time width"]:
        """Reads x after what `carried` has read, and moves that on."""
        before = None if carried is None else carried.state
        assert not isinstance(before, tuple)
        # (depth, parts, batch, width)
        states = x.new_zeros(*self.shape[:2], len(x), self.shape[2]) if before is None else self._unpacked(before, x)
        after = []
        x = self.dropout(x)
        for layer, state in zip(self.layers, states, strict=True):
            parts = tuple(part[None].contiguous() for part in state)
            added, found = layer(F.layer_norm(x, x.shape[-1:]), parts if len(parts) == 2 else parts[0])
            x = x + self.dropout(added)
            after.append(torch.cat(found if isinstance(found, tuple) else (found,)))
        if carried is not None:
            packed = torch.stack(after).permute(2, 0, 1, 3).flatten(1)
            carried.state = packed.to(torch.promote_types(packed.dtype, torch.float32))
        return F.layer_norm(x, x.shape[-1:])

    def _unpacked(self, state: Float[Tensor, "batch numbers"], like: Tensor) -> Float[Tensor, "depth parts batch width"]:
        return state.unflatten(1, self.shape).permute(1, 2, 0, 3).to(like.dtype)
