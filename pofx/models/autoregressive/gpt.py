"""GPT: a causal transformer that gives the next token's distribution, in a recipe tuned for minutes on two CPU cores.

p(x) = prod_t p(x_t | begin, x_1, ..., x_{t-1})

The blocks are pre-normalised, with rotary positions, normalised queries and keys, and residual branches that start at
zero; Muon moves the matrices and AdamW the rest. Beside each token, the runs of 2 to 5 tokens that end with it have
vectors of their own, which is worth most where time is short: 1.74 instead of 1.92 nats per character on the validation
part of tiny-shakespeare after 250 moves of 8 windows of 128 characters (3 blocks, 128 wide).

References:
    Language Models are Unsupervised Multitask Learners, Radford et al., 2019,
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    RoFormer: Enhanced Transformer with Rotary Position Embedding, Su et al., 2021, https://arxiv.org/abs/2104.09864
    Byte Latent Transformer: Patches Scale Better Than Tokens, Pagnoni et al., 2024, https://arxiv.org/abs/2412.09871
    Muon: An optimizer for hidden layers in neural networks, Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from pofx import core
from pofx.core import (
    Batch,
    Budget,
    DataSpec,
    Fraction,
    Loss,
    Model,
    Positive,
    Recipe,
)
from pofx.nn.attention import Memory
from pofx.nn.next_token import NextToken
from pofx.nn.sampling import Read
from pofx.nn.writing import Writes

OPTIMIZER = core.Optimizer(
    name="muon", lr=3e-3, matrix_lr=3e-2, betas=(0.9, 0.95), momentum=0.95, decay="linear", decay_start=0.4
)  # fmt: skip

SPEED = 1_000_000
"""Training tokens a minute that a recipe counts on: what the smaller networks do on two CPU cores."""

SIZES = ((15_000_000, 6), (12_000_000, 5), (4_000_000, 4), (100_000, 3), (20_000, 2), (0, 1))
"""Depths for budgets of at least so many training tokens: (tokens, depth)."""

WIDE = 64
"""Features of a head, and features of a token for each block."""


class GPT(Model, Writes):
    """A causal transformer on tokens.

    Every token is predicted, the first from a begin symbol that is no part of the vocabulary. A text longer than the
    window is read with a sliding context: where the window is full, it starts anew with the begin symbol and the last
    half window. Scoring, sampling and completing follow this one rule.

    Raises `UsageError` for data without a vocabulary.
    """

    kinds = frozenset({"tokens"})
    window: int

    @dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Size of the network and how it is trained."""

        window: Positive = 256
        """Tokens that the model sees at once."""
        depth: Positive = 4
        """Transformer blocks: the one dial of the size, which the width follows."""
        width: Positive | None = None
        """Features of a token. None: 64 for each block."""
        heads: Positive | None = None
        """Attention heads; 2 x heads divides width. None: one for 64 features."""
        dropout: Fraction = 0.0
        """Share of features dropped from the embedding and from each residual branch."""
        runs: Positive = 5
        """Longest run of tokens that has a vector of its own, beside each single token."""
        rows: Positive = 8192
        """Rows of the table of each length of runs, which share them by a hash where they are too many."""
        optimizer: core.Optimizer = field(default_factory=lambda: OPTIMIZER)
        """How the parameters move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.window = config.window
        self.begin = spec.vocabulary
        width = config.width or WIDE * config.depth
        heads = config.heads or max(1, width // WIDE)
        self.network = NextToken(spec.vocabulary, width, config.depth, heads, config.dropout, runs=config.runs, rows=config.rows)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Size from the length of the budget and of the text; a short text read often is read with dropout."""
        budget = budget or Budget(minutes=3)
        size = spec.size or 1_000_000
        # A window leaves room for several of them in the text, and never exceeds it.
        window, batch_size = max(1, min(256, size // 16)), 8
        seen = budget.seen(size, window * batch_size, SPEED)
        passes = seen / size
        # A large network learns a short text by heart, whatever the time.
        affordable = min(seen, 20 * size)
        config = cls.Config(
            window=window,
            depth=next(depth for least, depth in SIZES if affordable >= least),
            # A table much longer than the text learns it by heart.
            rows=max(64, min(16_384, size // 32)),
            dropout=0.2 if passes > 20 else 0.1 if passes > 5 else 0.0,
            optimizer=OPTIMIZER,
        )
        return Recipe(config=config, batch_size=batch_size, budget=budget, ema=0.99)

    def loss(self, batch: Batch) -> Loss:
        """The term `nll`: -log p in nats per token, a mean over all tokens of the batch."""
        logits = self.logits(batch.x)
        return Loss({"nll": F.cross_entropy(logits.flatten(0, 1), batch.x.flatten())})

    def logits(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Logits of every token of x from those before it; x may be longer than the window."""
        parts: list[Tensor] = []
        done, length = 0, x.shape[1]
        while done < length:
            start = self._start(done)
            stop = min(start + self.window, length)
            parts.append(self.network(self._inputs(x, start, stop - 1))[:, done - start :])
            done = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _start(self, position: int) -> int:
        """The first token of the context from which the token at `position` is predicted."""
        stride = self.window - self.window // 2
        return 0 if position < self.window else ((position - self.window) // stride + 1) * stride

    def _inputs(self, x: Int64[Tensor, "batch time"], start: int, stop: int) -> Int64[Tensor, "batch context"]:
        """The begin symbol and the tokens [start, stop)."""
        return F.pad(x[:, start:stop], (1, 0), value=self.begin)

    def reader(self, x: Int64[Tensor, "batch time"]) -> Read:
        """A function from rising positions to their logits given what x holds to the left at the time of the call.

        It reads every token once in each context: what is new since the last call in one piece, the rest from memory.
        """
        memory, start = Memory(self.config.window, self.config.depth), 0

        def read(position: int) -> Float[Tensor, "batch vocabulary"]:
            nonlocal memory, start
            if start != self._start(position):
                memory, start = Memory(self.config.window, self.config.depth), self._start(position)
            # The begin symbol is the first thing that a memory reads.
            new = x[:, start + memory.length - 1 : position] if memory.length else self._inputs(x, start, position)
            return self.network(new, memory)[:, -1]

        return read
