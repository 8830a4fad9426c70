"""GPT: a causal transformer that gives the next token's distribution, in a recipe tuned for minutes on two CPU cores.

p(x) = prod_t p(x_t | begin, x_1, ..., x_{t-1})        x_t a token, a level of a pixel, or the numbers of a step

The blocks are pre-normalised, with rotary positions, normalised queries and keys, and residual branches that start at
zero; Muon moves the matrices and AdamW the rest. Beside each token, the runs of 2 to 5 tokens that end with it have
vectors of their own, which is worth most where time is short: 1.74 instead of 1.92 nats per character on the validation
part of tiny-shakespeare after 250 moves of 8 windows of 128 characters (3 blocks, 128 wide).

References:
    Language Models are Unsupervised Multitask Learners, Radford et al., 2019,
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    RoFormer: Enhanced Transformer with Rotary Position Embedding, Su et al., 2021, https://arxiv.org/abs/2104.09864
    Byte Latent Transformer: Patches Scale Better Than Tokens, Pagnoni et al., 2024, https://arxiv.org/abs/2412.09871
    Generative Pretraining from Pixels, Chen et al., 2020, https://proceedings.mlr.press/v119/chen20s.html
    Muon: An optimizer for hidden layers in neural networks, Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from pofx import core
from pofx.core import Batch, Budget, DataSpec, Fraction, Likelihood, Loss, Noise, Positive, Recipe, UsageError
from pofx.nn import labels, sampling
from pofx.nn.attention import Memory
from pofx.nn.continuing import Continues, Said
from pofx.nn.gaussian_mixture import GaussianMixture
from pofx.nn.next_token import NextNumbers, NextToken
from pofx.nn.sampling import Choice, Read
from pofx.nn.writing import Passage

OPTIMIZER = core.Optimizer(
    name="muon", lr=3e-3, matrix_lr=3e-2, betas=(0.9, 0.95), momentum=0.95, decay="linear", decay_start=0.4
)  # fmt: skip

SPEED = 1_000_000
"""Training tokens a minute that a recipe counts on: what the smaller networks do on two CPU cores."""

SIZES = ((15_000_000, 6), (12_000_000, 5), (4_000_000, 4), (100_000, 3), (20_000, 2), (0, 1))
"""Depths for budgets of at least so many training tokens: (tokens, depth)."""

LONG = 4_000_000
"""Training tokens from which on batches of texts are twice as large."""

OFTEN = 5
"""Passes from which on a text is read so often that a network must be kept from learning it by heart."""

WIDE = 64
"""Features of a head, and features of a token for each block."""

SCORED = 16_384
"""Pixels of each batch of images that a validation reads."""

LIMIT = 4096
"""Numbers of the largest image: attention costs their square, and drawing one reads as many steps one after the other."""


class GPT(Continues):
    """A causal transformer on tokens, on the pixels of images, and on sequences of numbers.

    Every element is predicted, the first from a begin symbol that is no part of the vocabulary. A text longer than the
    window is read with a sliding context: where the window is full, it starts anew with the begin symbol and the last
    half window. Scoring, sampling and completing follow this one rule, of sequences with an example's steps as the window.

    The levels of an image, pixel after pixel and channel after channel, are a text of which each place has a vector of its
    own; with labels, of whatever kind, every pixel is read with that of the label. The loss term `nll` is in nats per token
    of a text, and in nats per example of images, with the metric `bits_per_dimension`, and of sequences.

    Raises `UsageError` for texts without a vocabulary, for images without levels and for those too large to attend to.
    """

    kinds = frozenset({"tokens", "images", "sequences"})
    in_order = True

    @dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Size of the network and how it is trained."""

        window: Positive = 256
        """Tokens that the model sees at once (texts; of images all pixels, of sequences an example's steps)."""
        depth: Positive = 4
        """Transformer blocks: the one dial of the size, which the width follows."""
        width: Positive | None = None
        """Features of a token. None: 64 for each block."""
        heads: Positive | None = None
        """Attention heads; 2 x heads divides width. None: one for 64 features."""
        dropout: Fraction = 0.0
        """Share of features dropped from the embedding and from each residual branch."""
        runs: Positive = 5
        """Longest run of tokens that has a vector of its own, beside each single token (texts and images)."""
        rows: Positive = 8192
        """Rows of the table of each length of runs, which share them by a hash where they are too many."""
        runs_dropout: Fraction = 0.0
        """Share of the vectors of runs that training leaves out, each for itself (texts and images)."""
        components: Positive = 5
        """Gaussians of the mixture that the next numbers follow (sequences)."""
        conditional: bool = False
        """Whether to learn p(x|label) of images; needs labels: classes, attributes or values."""
        optimizer: core.Optimizer = field(default_factory=lambda: OPTIMIZER)
        """How the parameters move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if spec.kind == "images" and spec.bits is None:
            raise UsageError("a gpt gives probabilities to levels, and these images have none: give --data.bits 8 or 1")
        if spec.kind == "images" and math.prod(spec.shape) > LIMIT:
            raise UsageError(
                f"images of {' x '.join(map(str, spec.shape))} are {math.prod(spec.shape):,} numbers, and a gpt attends to {LIMIT:,} at "
                "most: make them smaller with --data.size, or train a pixel_cnn"
            )
        if config.conditional and spec.kind != "images":
            raise UsageError("a gpt takes the labels of images only: leave --model.conditional out")
        self.window = config.window if spec.kind == "tokens" else None
        self.length = self.window or (math.prod(spec.shape) if spec.kind == "images" else spec.shape[0])
        self.condition = labels.Condition(spec, "gpt") if config.conditional else None
        self.mixture = GaussianMixture(spec.shape[-1] if spec.kind == "sequences" else 0, config.components)
        width = config.width or WIDE * config.depth
        size: dict[str, Any] = {
            "width": width,
            "depth": config.depth,
            "heads": config.heads or max(1, width // WIDE),
            "dropout": config.dropout,
        }
        self.network: NextNumbers | NextToken
        if spec.kind == "sequences":
            self.network = NextNumbers(spec.shape[-1] + 1, self.mixture.outputs, **size)
        else:
            self.network = NextToken(
                self.vocabulary,
                **size,
                places=self.length if spec.kind == "images" else 0,
                runs=config.runs,
                rows=config.rows,
                runs_dropout=config.runs_dropout,
                context=0 if self.condition is None else self.condition.width,
            )

    @property
    def vocabulary(self) -> int:
        """Symbols that an element can be, of images their levels; 0: it is numbers."""
        return self.spec.vocabulary if self.spec.kind != "images" else 2 ** (self.spec.bits or 0)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Size from the length of the budget and of the text, of which images are a long one; what is short and read often is read
        with dropout. A small network for sequences."""
        if spec.kind == "sequences":
            config = cls.Config(depth=2, width=64, heads=2, optimizer=replace(OPTIMIZER, matrix_lr=2e-2, warmup=0.02))
            return Recipe(config=config, batch_size=32, budget=budget or Budget(minutes=1), ema=0.99)
        budget = budget or Budget(minutes=3)
        if spec.kind == "images":
            window = math.prod(spec.shape)
            size, batch_size = (spec.size or 1000) * window, max(1, min(64, 4096 // window))
        else:
            # A window leaves room for several of them in the text, and never exceeds it.
            size = spec.size or 1_000_000
            window = max(1, min(256, size // 16))
            # Where there is time, fewer moves of more windows read more.
            batch_size = 16 if budget.seen(size, window * 8, SPEED) >= LONG else 8
        seen = budget.seen(size, window * batch_size, SPEED)
        passes = seen / size
        often = passes > OFTEN
        # A large network learns a short text by heart, whatever the time.
        affordable = min(seen, 20 * size)
        config = cls.Config(
            window=window,
            depth=next(depth for least, depth in SIZES if affordable >= least),
            # What has as many vectors as the text has runs learns it by heart: at 10 passes over tiny-shakespeare, the 16,384 rows and
            # runs of 5 that are best for 3 passes cost 0.08 nats of the validation part.
            runs=3 if often else 5,
            rows=max(64, min(16_384, size // (256 if often else 32))),
            runs_dropout=0.3 if often else 0.0,
            dropout=0.2 if passes > 20 else 0.1 if often else 0.0,
            optimizer=replace(OPTIMIZER, weight_decay=0.1) if often else OPTIMIZER,
        )
        return Recipe(config=config, batch_size=batch_size, budget=budget, ema=0.99)

    # ------------------------------------------------------------------------------------------------------ training

    def loss(self, batch: Batch) -> Loss:
        """The term `nll`: -log p in nats per token of a text, else per example; in training mode it also counts the labels."""
        if self.spec.kind != "images":
            nll = self._cost(self.outputs(batch.x)).mean()
            return Loss({"nll": nll / batch.x.shape[1] if self.vocabulary else nll})
        nll = self._image_nll(batch.x, labels.shown(self.condition, batch.label, training=self.training)).mean()
        return Loss({"nll": nll}, metrics={"bits_per_dimension": nll.detach() / (math.log(2) * self.length)})

    def validate(self, batch: Batch) -> Float[Tensor, ""]:
        """The validation score: of a batch of images that of the first few, since all of them take longer than many moves."""
        if self.spec.kind != "images":
            return super().validate(batch)
        few = max(1, SCORED // self.length)
        return super().validate(Batch(batch.x[:few], None if batch.label is None else batch.label[:few]))

    def _image_nll(self, x: Float[Tensor, "batch channels height width"], label: Tensor | None) -> Float[Tensor, " batch"]:
        """-log p(x|label)."""
        return self._cost(self.outputs(self._levels(x), self._context(label, x)))

    def _context(self, label: Tensor | None, like: Tensor) -> Float[Tensor, "batch context"] | None:
        return None if self.condition is None else self.condition.vector(label, like)

    def _levels(self, x: Float[Tensor, "batch channels height width"]) -> Int64[Tensor, "batch time"]:
        """Levels as the model reads them."""
        return (_raster(x) * (self.vocabulary - 1)).round().to(torch.int64)

    def _image(self, level: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch channels height width"]:
        """Images of these levels."""
        channels, height, width = self.spec.shape
        x = level.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        return x.to(self.network.head.weight.dtype) / (self.vocabulary - 1)

    # ------------------------------------------------------------------------------------------------------- reading

    def outputs(self, x: Shaped[Tensor, "batch time ..."], context: Float[Tensor, "batch context"] | None = None) -> Iterator[Said]:
        """What the network says of the elements of x, of any length, a window at a time: its output, the element before, and they
        themselves."""
        previous = self._inputs(x, 0, x.shape[1] - 1)
        done, length = 0, x.shape[1]
        while done < length:
            start = self._start(done)
            stop = min(start + self.length, length)
            output = self._said(self._inputs(x, start, stop - 1), None, context)
            yield output[:, done - start :], previous[:, done:stop], x[:, done:stop]
            done = stop

    def _said(self, inputs: Tensor, memory: Memory | None, context: Tensor | None) -> Float[Tensor, "batch time outputs"]:
        # A network of numbers knows no labels.
        return self.network(inputs, memory) if context is None else self.network(inputs, memory, context)

    def _start(self, position: int) -> int:
        """The first element of the context from which the one at `position` is predicted."""
        stride = self.length - self.length // 2
        return 0 if position < self.length else ((position - self.length) // stride + 1) * stride

    def _inputs(self, x: Shaped[Tensor, "batch time ..."], start: int, stop: int) -> Shaped[Tensor, "batch context ..."]:
        """The begin symbol and the elements [start, stop)."""
        return torch.cat((self._first(len(x)), self._marked(x[:, start:stop])), 1)

    def reader(self, x: Shaped[Tensor, "batch time ..."], context: Float[Tensor, "batch context"] | None = None) -> Read:
        """A function from rising positions to what is said of them given what x holds to the left at the time of the call.

        It reads every element once in each context: what is new since the last call in one piece, the rest from memory.
        """
        memory, start = Memory(self.length, self.config.depth), 0

        def read(position: int) -> Float[Tensor, "batch outputs"]:
            nonlocal memory, start
            if start != self._start(position):
                memory, start = Memory(self.length, self.config.depth), self._start(position)
            # The begin symbol is the first thing that a memory reads.
            new = self._marked(x[:, start + memory.length - 1 : position]) if memory.length else self._inputs(x, start, position)
            return self._said(new, memory, context)[:, -1]

        return read

    # ------------------------------------------------------------------------------------------- images: capabilities

    @torch.no_grad()
    def log_prob(self, x: Shaped[Tensor, "batch ..."], *, label: Tensor | None = None) -> Likelihood:
        """Exact log p(x) in nats; a conditional model without labels gives log sum_y p(y) p(x|y) over the training marginal, a lower
        bound in the mean where some of its many different rows stand for all."""
        if self.spec.kind != "images":
            return super().log_prob(x, label=label)
        labels.check(self.condition, label, len(x), "gpt")
        nats, kind = labels.exact_log_prob(self.condition, self._image_nll, x, label)
        return Likelihood(nats, kind, "binary" if self.spec.bits == 1 else "8-bit")

    def _write(self, n: int, choice: Choice, passage: Passage, *, noise: Noise, label: Tensor | None) -> Shaped[Tensor, "n ..."]:
        """Images are of one size and begin with nothing; labels that are not given come from the training marginal."""
        if self.spec.kind != "images":
            return super()._write(n, choice, passage, noise=noise, label=label)
        if any(knob is not None for knob in passage):
            raise UsageError("an image has all its pixels and begins with the first: leave length, prompt, stop and watch out")
        labels.check(self.condition, label, n, "gpt", missing=False)
        if self.condition is not None and label is None:
            label = self.condition.draw(noise)
        reader = functools.partial(self.reader, context=self._context(label, torch.empty(n, device=self.device)))
        return self._image(sampling.write(reader, n, vocabulary=self.vocabulary, length=self.length, choice=choice, noise=noise))

    @torch.no_grad()
    def complete(
        self,
        x: Shaped[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch ..."],
        *,
        noise: Noise,
        label: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Shaped[Tensor, "batch ..."]:
        """x with the elements where `mask` is False drawn anew, in their order, each given all before it, kept or drawn.

        What comes behind an element has no influence on it, but for the numbers that are kept of its own step. Without labels a
        conditional model draws from p(x).
        """
        if self.spec.kind != "images":
            self._refuse(label)
            return super().complete(x, mask, noise=noise, temperature=temperature)
        labels.check(self.condition, label, len(x), "gpt")
        reader = functools.partial(self.reader, context=self._context(label, x))
        level, choice = self._levels(x.masked_fill(~mask, 0)), Choice(temperature=temperature)
        filled = sampling.fill(reader, level, _raster(mask), vocabulary=self.vocabulary, choice=choice, noise=noise)
        return torch.where(mask, x, self._image(filled))


def _raster(x: Shaped[Tensor, "batch channels height width"]) -> Shaped[Tensor, "batch time"]:
    """Images pixel after pixel, the channels of each in turn."""
    return x.permute(0, 2, 3, 1).flatten(1)
