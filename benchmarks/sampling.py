"""Tokens a second of the GPT with its cache, against the same network without it and against the loop that people write.

    python benchmarks/sampling.py [--depth 4] [--times 256 1024] [--batches 1 16 64] [--repeats 3]

Three ways of drawing T tokens from nothing with a window of T, in turns, in float32:
    cached     the model's own `sample`;
    uncached   the same network, sampler and random numbers, which reads the whole window again for each token;
    plain      a GPT of the same size as tutorials have it (learned positions, biases, GELU, fused attention), which reads the
               window again for each token and draws with `torch.multinomial`.
An uncached token costs the same whatever is in the window, so that a few windows of rising length stand for all: their mean is
the time of a token. Prints a table, and writes benchmarks/results/sampling_text.json. Fails where the cache is less than 8 times
as fast as either at T = 256 and batch 1, or 20 times at T = 1,024.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pofx import discovery
from pofx.core import DataSpec, Model, Noise
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "sampling_text.json"
#: Times that the cache must be as fast as either other way at batch 1, by length.
WANTED = {256: 8.0, 1024: 20.0}
VOCABULARY = 65
#: Lengths, as shares of the window, at which a token without a cache is timed: the middles of equal parts.
SHARES = (0.125, 0.375, 0.625, 0.875)


class PlainBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        batch, time_, width = x.shape
        packed = self.packed(self.norms[0](x)).view(batch, time_, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time_, width))
        return x + self.narrow(F.gelu(self.widen(self.norms[1](x))))


class Plain(nn.Module):
    """A GPT as tutorials have it."""

    def __init__(self, window: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(VOCABULARY, width), nn.Embedding(window, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch vocabulary"]:
        """Logits of the next token."""
        x = self.embedding(tokens) + self.place.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1]))

    def step(self, tokens: Int64[Tensor, "batch time"]) -> Tensor:
        """One more token of each text."""
        return torch.multinomial(self(tokens).softmax(-1), 1)


def build(window: int, depth: int) -> tuple[Model, Plain]:
    """Both networks, of one size; weights at random, since a branch that starts at zero costs the same as another."""
    torch.manual_seed(0)
    cls = discovery.model("gpt")
    model = cls(DataSpec("tokens", (), size=1_000_000, vocabulary=VOCABULARY), cls.Config(window=window, depth=depth)).eval()
    return model, Plain(window, 64 * depth, depth, depth).eval()


def seconds(work: Callable[[], Any]) -> float:
    """That some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(model: Model, plain: Plain, length: int, batch: int, repeats: int) -> dict[str, float]:
    """Tokens a second of each way, medians over turns, and the medians of paired ratios."""
    noise = Noise(0, batch)
    texts = [torch.zeros(batch, max(1, round(share * length)), dtype=torch.int64) for share in SHARES]

    def uncached() -> float:
        return statistics.mean(seconds(lambda x=x: noise.categorical(model.logits(x)[:, -1].double().softmax(-1))) for x in texts)

    def tutorial() -> float:
        return statistics.mean(seconds(lambda x=x: plain.step(x)) for x in texts)

    ways = {
        "cached": lambda: seconds(lambda: model.sample(batch, noise=Noise(0, batch), length=length)) / length,  # type: ignore[operator]
        "uncached": uncached,
        "plain": tutorial,
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for number in range(repeats + 1):
            for way, token in ways.items():
                value = token()
                if number:  # the first turn warms up
                    found[way].append(value)
    rates = {way: batch / statistics.median(values) for way, values in found.items()}
    times = {
        f"times {way}": statistics.median(other / own for own, other in zip(found["cached"], found[way], strict=True))
        for way in ("uncached", "plain")
    }
    return rates | times


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--depth", type=int, default=4, help="blocks; the width is 64 times as much")
    parser.add_argument("--times", type=int, nargs="*", default=[64, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    columns = ("cached", "uncached", "plain", "times uncached", "times plain")
    print(f"depth {options.depth}, width {64 * options.depth}, float32, {torch.get_num_threads()} threads; tokens a second")
    print("    T  batch" + "".join(column.rjust(16) for column in columns))
    rows, missed = [], 0
    for length in options.times:
        model, plain = build(length, options.depth)
        for batch in options.batches:
            row = measure(model, plain, length, batch, options.repeats)
            least = WANTED.get(length) if batch == 1 else None
            held = least is None or min(row["times uncached"], row["times plain"]) >= least
            missed += not held
            verdict = "" if least is None else f"   {'as it must be' if held else 'MISSED'}: at least {least:g}"
            print(f"{length:5d} {batch:6d}" + "".join(f"{row[column]:16,.1f}" for column in columns) + verdict, flush=True)
            rows.append({"length": length, "batch": batch, **row, "least": least})
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[f"depth {options.depth}"] = {"threads": torch.get_num_threads(), "hardware": hardware(), "versions": versions(), "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
