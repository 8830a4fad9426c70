"""Masked dense networks: what is said of a variable follows from the variables before it; one after the other from a memory, too."""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.dropout import Dropout


class MaskedLinear(nn.Linear):
    """A linear layer whose units take what may be known to them: inputs of at most their own degree (`strict`: of a lower one).

    The degree of a number is that of the last variable that it depends on; both lists rise.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], *, strict: bool = False, bias: bool = True) -> None:
        super().__init__(len(inputs), len(outputs), bias=bias)
        for name, degrees in (("known", inputs), ("degree", outputs)):
            # Training keeps no copy of what follows from the config.
            self.register_buffer(name, torch.tensor(degrees, dtype=torch.int32), persistent=False)
        self.strict = strict

    def masked(self) -> Float[Tensor, "outputs inputs"]:
        """The weights that count, 0 elsewhere."""
        seen = self.degree[:, None] > self.known if self.strict else self.degree[:, None] >= self.known
        return torch.where(seen, self.weight, 0)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """(batch, inputs) to (batch, outputs)."""
        return F.linear(x, self.masked(), self.bias)


class Masked(Network):
    """From numbers of variables in order to numbers about each of them, which depend on the earlier variables alone.

    h_1 = silu(M_1 x + C y),  h_l+1 = h_l + silu(M_l+1 h_l) where both are as wide, else silu(M_l+1 h_l),  output = M h + D x

    Arguments:
        inputs, outputs: the variable of each number, from 1 on, rising.
        hidden: widths of the hidden layers, whose units' degrees are spread evenly over the variables.
        direct: whether there is D.
        context: length of the vector y of a label; 0 for none.
        dropout: share of the last hidden units that training silences.

    References:
        MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        hidden: Sequence[int],
        *,
        direct: bool = True,
        context: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        count = outputs[-1]
        # Units of degree 0 know the label alone.
        degrees: list[Sequence[int]] = [inputs, *([i * count // width for i in range(width)] for width in hidden)]
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in itertools.pairwise(degrees))
        self.head = MaskedLinear(degrees[-1], outputs, strict=True)
        self.direct = MaskedLinear(inputs, outputs, strict=True, bias=False) if direct else None
        self.told = nn.Linear(context, hidden[0], bias=False) if context else None
        self.dropout = Dropout(dropout)
        # At the start every variable is all but independent of the others.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        if self.direct is not None:
            nn.init.zeros_(self.direct.weight)

    def compute(
        self, x: Float[Tensor, "batch inputs"], context: Float[Tensor, "batch context"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """(batch, inputs), and (batch, context) where there is one, to (batch, outputs)."""
        h = x
        for number, layer in enumerate(self.layers):
            new = layer(h)
            if number == 0 and self.told is not None and context is not None:
                new = new + self.told(context)
            h = h + F.silu(new) if number and new.shape == h.shape else F.silu(new)
        outputs = self.head(self.dropout(h))
        return outputs if self.direct is None else outputs + self.direct(x)

    def reader(
        self, x: Float[Tensor, "n inputs"], context: Float[Tensor, "n context"] | None = None
    ) -> Callable[[int], Float[Tensor, "n numbers"]]:
        """A function from variables 1, 2, ... in turn to the outputs about each, given what x holds of the earlier ones at the time
        of the call. Each unit is computed once, when all that it depends on is there; in the precision of the weights.
        """
        layers: list[MaskedLinear] = list(self.layers)  # type: ignore[arg-type]
        told = None if self.told is None or context is None else self.told(context.to(x.dtype))
        units = [x, *(x.new_zeros(len(x), layer.out_features) for layer in layers)]

        def places(degrees: Tensor, count: int) -> list[int]:
            """How many numbers have a degree of at most 0, 1, ..., count."""
            return torch.searchsorted(degrees.cpu(), torch.arange(count + 1, dtype=degrees.dtype), right=True).tolist()

        count = int(self.head.degree[-1])
        below = [places(layer.known, count) for layer in (*layers, self.head)]
        said = places(self.head.degree, count)

        def read(variable: int) -> Tensor:
            last = variable - 1
            for number, layer in enumerate(layers):
                degrees = below[number + 1]
                start, stop, seen = degrees[last - 1] if last else 0, degrees[last], below[number][last]
                if start == stop:
                    continue
                new = F.linear(units[number][:, :seen], layer.weight[start:stop, :seen], layer.bias[start:stop])
                if number == 0 and told is not None:
                    new = new + told[:, start:stop]
                new = F.silu(new)
                residual = number and units[number].shape == units[number + 1].shape
                units[number + 1][:, start:stop] = units[number][:, start:stop] + new if residual else new
            rows = slice(said[last], said[variable])
            seen = below[-1][last]
            outputs = F.linear(units[-1][:, :seen], self.head.weight[rows, :seen], self.head.bias[rows])
            if self.direct is not None:
                known = below[0][last]
                outputs = outputs + F.linear(x[:, :known], self.direct.weight[rows, :known])
            return outputs

        return read
