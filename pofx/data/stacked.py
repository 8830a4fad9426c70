"""Three random images of a set of ten classes as the channels of one: 1,000 modes that can be counted.

120,000 images to train, 6,000 to validate and 26,000 to test, stacked from the images of the part of the same name, so that
no single image is in two parts. Every channel is drawn evenly and by itself; `--data.label mode` gives the classes of the
three channels in their order as one of 1,000 classes.

References:
    Unrolled Generative Adversarial Networks (Metz et al., 2017), section 3.3.2, https://arxiv.org/abs/1611.02163
    PacGAN: The Power of Two Samples in Generative Adversarial Networks (Lin et al., 2018), section 4.2,
    https://arxiv.org/abs/1712.04086
"""

import itertools
import pathlib

import numpy as np
import torch
from jaxtyping import Int, Int64

from pofx.core import Classes, UsageError, mix
from pofx.data import arrays, digits, idx
from pofx.data.dataset import Dataset
from pofx.data.labels import Labels
from pofx.data.options import Options, Request

PREFIX, CHANNELS, MODE = "stacked_", 3, "mode"
#: Where the images come from, each a module with `load`.
BASES = {"digits": digits, "fashion_mnist": idx, "mnist": idx}
NAMES = {
    "stacked_digits": "152,000 triples of the digits as colours, 8x8; 1,000 modes",
    "stacked_fashion_mnist": "152,000 triples of pictures of clothes as colours, 28x28; 1,000 modes",
    "stacked_mnist": "152,000 triples of handwritten digits as colours, 28x28; 1,000 modes",
}
PARTS = (120_000, 6_000, 26_000)


def matches(path: pathlib.Path) -> bool:
    """No file is read here."""
    return False


def base(source: str) -> str:
    """The name of the set that a stacked one is made of."""
    return source.removeprefix(PREFIX)


def load(request: Request) -> Dataset:
    """The triples, a function of `--data.seed`. Raises `UsageError` for a label other than mode."""
    if request.options.label not in (None, MODE):
        raise UsageError(f"{request.source} has one label, the classes of its three channels: give --data.label {MODE}, or none")
    name = base(request.source)
    single = BASES[name].load(Request(name, None, Options(seed=request.seed)))
    names = single.spec.label.names
    x, modes = np.empty((sum(PARTS), CHANNELS, *single.spec.shape[1:]), dtype=np.uint8), np.empty(sum(PARTS), dtype=np.int64)
    start = 0
    for part, size in zip(("train", "validation", "test"), PARTS, strict=True):
        split = getattr(single, part)
        single_part = split.batch(split.positions())
        pictures, classes = single_part.x, single_part.label
        stored = pictures[:, 0].mul(255).round().to(torch.uint8).numpy()
        rows = np.random.default_rng(mix(request.seed, PREFIX, part)).integers(len(split), size=(size, CHANNELS))
        for channel in range(CHANNELS):
            x[start : start + size, channel] = stored[rows[:, channel]]
        modes[start : start + size] = mode_of(classes.numpy()[rows], len(names))
        start += size
    labels = None
    if request.options.label is not None:
        labels = Labels(torch.from_numpy(modes), Classes(tuple(", ".join(three) for three in itertools.product(names, repeat=CHANNELS))))
    # The triples follow from the images and from the options, which the fingerprint contains.
    content = f"{request.source} {PARTS} {single.fingerprint}"
    return arrays.build(request, x, labels, own=PARTS, content=content, also=("label",))


def mode_of(classes: Int[np.ndarray, "n channels"], count: int) -> Int64[np.ndarray, " n"]:
    """The number of the mode of each triple of classes, the first channel counting most; `count` is how many classes there are."""
    return np.ravel_multi_index(tuple(np.asarray(classes, dtype=np.int64).T), (count,) * CHANNELS)
