"""Asking a model about examples: which ones are held out, draws in parts, codes, reconstructions."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pofx.core import Batch, Decodes, Encodes, Model, Noise, Samples
from pofx.data.dataset import Dataset, Split

#: Examples that a model is asked about at once.
PART = 64


@contextlib.contextmanager
def asking(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients; the mode before returns afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def held_out(dataset: Dataset) -> tuple[str, Split]:
    """The part that training did not see, with its name: test, else validation, else (there is no other) train."""
    for name in ("test", "validation"):
        split = getattr(dataset, name)
        if split is not None:
            return name, split
    return "train", dataset.train


def first(split: Split, n: int, window: int | None = None) -> Batch:
    """The first n examples (as many as there are) of a part."""
    return next(split.batches(n, window=window, limit=n))


def parts(batch: Batch) -> Iterator[Batch]:
    """The batch, some examples at a time."""
    for start in range(0, len(batch.x), PART):
        rows = slice(start, start + PART)
        yield Batch(batch.x[rows], None if batch.label is None else batch.label[rows])


def conditions(model: Model, label: Tensor | None) -> Tensor | None:
    """The labels where the model asks for some, None where it does not."""
    return label if getattr(model.config, "conditional", False) else None


def encode(model: Model, batch: Batch) -> Float[Tensor, "batch latent"]:
    """The codes of a batch, on the CPU."""
    with asking(model):
        label = conditions(model, batch.label)
        return cast(Encodes, model).encode(batch.x.to(model.device), label=None if label is None else label.to(model.device)).cpu()


def decode(model: Model, z: Float[Tensor, "batch latent"], label: Tensor | None = None) -> Shaped[Tensor, "batch ..."]:
    """The data behind codes, on the CPU, some codes at a time."""
    with asking(model):
        label = conditions(model, label)
        labels = [None] * len(z) if label is None else label.to(model.device).split(PART)
        return torch.cat(
            [cast(Decodes, model).decode(part.to(model.device), label=y).cpu() for part, y in zip(z.split(PART), labels, strict=False)]
        )


def reconstruct(model: Model, batch: Batch) -> Shaped[Tensor, "batch ..."]:
    """decode(encode(x)) of a batch, on the CPU."""
    return cut(decode(model, encode(model, batch), batch.label), batch.x)


def cut(result: Shaped[Tensor, "batch ..."], x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
    """What a code was decoded to, as long as what it was made of: the last window of a text may be short."""
    return result[:, : x.shape[1]]


def prior_codes(model: Model, n: int, seed: int) -> Float[Tensor, "n latent"]:
    """n codes of the model's prior, on the CPU, a function of the seed."""
    with torch.random.fork_rng(devices=[]), asking(model):
        torch.manual_seed(seed)
        return cast(Decodes, model).prior().sample((n,)).cpu()


def draw(model: Model, n: int, *, seed: int = 0, first: int = 0, label: Tensor | None = None, **knobs: Any) -> Shaped[Tensor, "n ..."]:
    """n new examples on the CPU, drawn in parts that equal the whole.

    Arguments:
        first: number of the first one in the whole sample that these are a part of.
        label: (n,) classes of a conditional model.
        knobs: further arguments of the model's own `sample`.
    """
    drawn = []
    with asking(model):
        for start in range(0, n, PART):
            count = min(PART, n - start)
            noise = Noise(seed, count, first=first + start, device=model.device)
            of = None if label is None else label[start : start + count].to(model.device)
            drawn.append(cast(Samples, model).sample(count, noise=noise, label=of, **knobs).cpu())
    return torch.cat(drawn)
