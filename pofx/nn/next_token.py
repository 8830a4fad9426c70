"""The next element's distribution given those before it, by a causal transformer: of texts, codes and pixels, and of numbers."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.attention import CausalTransformer, Memory
from pofx.nn.conditioning import Embedding
from pofx.nn.dropout import spared

#: An odd number by which runs are hashed, of the golden ratio's bits; products wrap around at 2^64.
MIXER = 0x1E3779B97F4A7C15


def probabilities(logits: Float[Tensor, "n vocabulary"], temperature: float = 1.0) -> Float[Tensor, "n vocabulary"]:
    """Softmax of logits / temperature in float64, on the CPU, where every machine has it."""
    return (logits.to("cpu", torch.float64) / temperature).softmax(-1)


class Runs(nn.Module):
    """Vectors of the runs of 2 to `longest` tokens that end at each place, summed; they start at zero.

    Each length has `rows` rows, among which its runs are spread by a hash. They tell the first layer at once what a transformer
    must otherwise find out by attending: which letters stand before this one.

    Arguments:
        symbols: tokens, the begin symbol among them.
        dropout: share of these vectors that are left out in training, each for itself, the others being the larger for it: those
            of long runs know the training text by heart.

    References:
        Byte Latent Transformer: Patches Scale Better Than Tokens, Pagnoni et al., 2024, section 3.2.1 (hash n-gram embeddings),
            https://arxiv.org/abs/2412.09871
    """

    def __init__(self, symbols: int, width: int, longest: int, rows: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.symbols, self.back, self._rows, self._dropout = symbols, longest - 1, rows, dropout
        # One table for all lengths, so that a place costs one look-up.
        self.table = nn.EmbeddingBag(self.back * rows, width, mode="sum")
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Int64[Tensor, "batch time"], before: Int64[Tensor, "batch back"]) -> Float[Tensor, "batch time width"]:
        """The sum at each of `tokens`; `before`: the `longest` - 1 tokens that stand before the first one."""
        batch, time = tokens.shape
        rows = self.rows(tokens, before).flatten(0, 1)
        weights = None
        if self.training and self._dropout:
            weights = spared(self.table.weight.new_empty(rows.shape), self._dropout)
        return self.table(rows, per_sample_weights=weights).view(batch, time, -1)

    def rows(self, tokens: Int64[Tensor, "batch time"], before: Int64[Tensor, "batch back"]) -> Int64[Tensor, "batch time lengths"]:
        """The row of each length's run, 2 tokens first."""
        x, number, time = torch.cat((before, tokens), 1), tokens, tokens.shape[1]
        numbers = []
        for back in range(1, self.back + 1):
            # Multiplying mixes the low bits into the high ones, from which the row is taken.
            number = torch.add(x.narrow(1, self.back - back, time), number, alpha=self.symbols) * MIXER
            numbers.append(number)
        first = torch.arange(0, self.back * self._rows, self._rows, device=tokens.device)
        return (torch.stack(numbers, 2) >> 24) % self._rows + first


class NextToken(Network):
    """Logits of the next token after each one, from symbols below vocabulary + 1, the last of which is the begin symbol.

    Arguments:
        vocabulary: symbols that can come next.
        width, depth, heads, dropout: of the transformer.
        places: learn a vector for each of so many places, where it matters which one it is; 0: distances alone count.
        runs: learn vectors for runs of up to so many tokens (see `Runs`), in tables of `rows` rows; 1: of single tokens alone.
        runs_dropout: share of these vectors that training leaves out.
        context: length of the vector of a label, which every token is read with; 0 for none.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        *,
        places: int = 0,
        runs: int = 1,
        rows: int = 1 << 13,
        runs_dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.place = nn.Embedding(places, width) if places else None
        self.runs = Runs(vocabulary + 1, width, runs, rows, runs_dropout) if runs > 1 else None
        self.told = Embedding(context, width) if context else None
        self.transformer = CausalTransformer(width, depth, heads, dropout)
        self.head = nn.Linear(width, vocabulary, bias=False)
        # Its rows belong to symbols, as those of the embedding, so AdamW moves it and Muon does not.
        self.head.moved_as_matrix = False
        nn.init.normal_(self.head.weight, std=0.02)

    def compute(
        self, tokens: Int64[Tensor, "batch time"], memory: Memory | None = None, context: Float[Tensor, "batch context"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Logits after each of `tokens`, which stand behind those in `memory` and are added to it."""
        x = self.embedding(tokens)
        if self.place is not None:
            start = 0 if memory is None else memory.length
            x = x + self.place.weight[start : start + tokens.shape[1]]
        if self.told is not None and context is not None:
            x = x + self.told(context.to(x.dtype))[:, None]
        if self.runs is not None:
            back = self.runs.back
            before = None if memory is None else memory.recent
            if before is None:
                before = tokens.new_full((len(tokens), back), self.embedding.num_embeddings - 1)
            x = x + self.runs(tokens, before)
            if memory is not None:
                memory.recent = torch.cat((before, tokens), 1)[:, -back:]
        return self.head(self.transformer(x, memory))


class NextNumbers(Network):
    """What is said of the next element of a sequence after each one, from its numbers and one more, which marks the begin.

    Arguments:
        numbers: of an element, with the mark. outputs: numbers that are said of the next one.
        width, depth, heads, dropout: of the transformer.
    """

    def __init__(self, numbers: int, outputs: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.element = nn.Linear(numbers, width)
        self.transformer = CausalTransformer(width, depth, heads, dropout)
        self.head = nn.Linear(width, outputs)
        # What their features and outputs mean is fixed, as that of symbols is: AdamW moves both, and Muon does not.
        self.element.moved_as_matrix = self.head.moved_as_matrix = False
        # At the start the next element is all but independent of the others.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def compute(self, x: Float[Tensor, "batch time numbers"], memory: Memory | None = None) -> Float[Tensor, "batch time outputs"]:
        """What follows each element of x, which stand behind those in `memory` and are added to it."""
        return self.head(self.transformer(self.element(x), memory))
