"""The next symbol's distribution given those before it, by a causal transformer: of texts, and of codes."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.attention import CausalTransformer, Memory


def probabilities(logits: Float[Tensor, "n vocabulary"], temperature: float = 1.0) -> Float[Tensor, "n vocabulary"]:
    """Softmax of logits / temperature in float64, on the CPU, where every machine has it."""
    return (logits.to("cpu", torch.float64) / temperature).softmax(-1)


class NextToken(Network):
    """Logits of the next token after each one, from symbols below vocabulary + 1, the last of which is the begin symbol.

    Arguments:
        vocabulary: symbols that can come next.
        width, depth, heads, dropout: of the transformer.
        places: learn a vector for each of so many places, where it matters which one it is; 0: distances alone count.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, dropout: float, *, places: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.place = nn.Embedding(places, width) if places else None
        self.transformer = CausalTransformer(width, depth, heads, dropout)
        self.head = nn.Linear(width, vocabulary, bias=False)
        # Its rows belong to symbols, as those of the embedding, so AdamW moves it and Muon does not.
        self.head.moved_as_matrix = False
        nn.init.normal_(self.head.weight, std=0.02)

    def compute(self, tokens: Int64[Tensor, "batch time"], memory: Memory | None = None) -> Float[Tensor, "batch time vocabulary"]:
        """Logits after each of `tokens`, which stand behind those in `memory` and are added to it."""
        x = self.embedding(tokens)
        if self.place is not None:
            start = 0 if memory is None else memory.length
            x = x + self.place.weight[start : start + tokens.shape[1]]
        return self.head(self.transformer(x, memory))
