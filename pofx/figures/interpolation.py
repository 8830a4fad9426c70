"""Walks through the codes between held-out examples, or between draws of the prior: linear ones beside spherical ones."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from pofx import asked, examples, figures
from pofx.core import Decodes, Encodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs, kinds = (Decodes,), ("images",)

Path = Literal["linear", "spherical"]
PATHS: tuple[Path, ...] = ("linear", "spherical")
#: Walks and their images, and frames and columns of the film.
WALKS, STEPS, FRAMES, BESIDE = 5, 11, 25, 8
#: Sine of the angle between two codes below which they lie on a line through the origin.
STRAIGHT = 1e-4


def walk(start: Float[Tensor, "walks ..."], stop: Float[Tensor, "walks ..."], steps: int, path: Path) -> Float[Tensor, "walks steps ..."]:
    """Codes on the way from `start` to `stop`, both among them; with shares t from 0 to 1 of the way,

        linear       (1 - t) a + t b
        spherical    (sin((1 - t) w) a + sin(t w) b) / sin w,    w the angle between a and b

    A spherical walk between equal norms keeps the norm, as codes drawn from N(0, I) in many dimensions do; a linear one
    passes through the inside, where hardly a code lies. Codes on a line through the origin are joined by it.

    References:
        Animating Rotation with Quaternion Curves (Shoemake, 1985), https://doi.org/10.1145/325165.325242
        Sampling Generative Networks (White, 2016), https://arxiv.org/abs/1609.04468
    """
    a, b = start.flatten(1)[:, None], stop.flatten(1)[:, None]
    share = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    from_a, from_b = 1 - share, share
    if path == "spherical":
        cosine = torch.cosine_similarity(a.double(), b.double(), dim=-1)[..., None].clamp(-1, 1)
        angle = cosine.arccos()
        sine = angle.sin()
        straight = sine < STRAIGHT
        sine = torch.where(straight, 1, sine)
        from_a = torch.where(straight, from_a, (from_a * angle).sin() / sine)
        from_b = torch.where(straight, from_b, (from_b * angle).sin() / sine)
    return (from_a.to(a.dtype) * a + from_b.to(a.dtype) * b).unflatten(2, start.shape[1:])


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """Five pairs, which `seed` chooses, each joined by both paths; a conditional model is asked for the label of the first of
    a pair, or, between draws of the prior, for one that is drawn as well."""
    start, stop, label, title = ends(model, dataset, WALKS, seed)
    walks = torch.stack([walk(start, stop, STEPS, path) for path in PATHS], 1)
    length = walks.flatten(3).norm(dim=-1).mean(0)
    labels = None if label is None else label.repeat_interleave(len(PATHS) * STEPS, 0)
    image = grid(examples.decode(model, walks.flatten(0, 2), labels), STEPS, gap=figures.GAP)
    lengths = (
        f"mean length of a code: {length[:, [0, -1]].mean():.2f} at the ends; "
        f"half way {length[0, STEPS // 2]:.2f} (linear) and {length[1, STEPS // 2]:.2f} (spherical)"
    )
    columns = [f"{share:.0%}" for share in torch.linspace(0, 1, STEPS).tolist()]
    names = asked.names(model, label)
    rows = PATHS * len(start) if names is None else [f"{figures.shorten(name)}, {path}" for name in names for path in PATHS]
    return figures.picture(image, title, run, rows=rows, columns=columns, below=lengths)


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Iterator[Figure]:
    """A column a pair, linear above and spherical below, all as far on their way in each frame."""
    start, stop, label, title = ends(model, dataset, BESIDE, seed)
    walks = torch.stack([walk(start, stop, FRAMES, path) for path in PATHS])
    labels = None if label is None else label.repeat(len(PATHS), *(1,) * (label.ndim - 1))
    for i in range(FRAMES):
        image = grid(examples.decode(model, walks[:, :, i].flatten(0, 1), labels), len(start), gap=figures.GAP)
        # As wide in every frame.
        yield figures.picture(image, f"{title}: {i / (FRAMES - 1):4.0%}", run, rows=PATHS)


def ends(model: Model, dataset: Dataset, pairs: int, seed: int) -> tuple[Tensor, Tensor, Tensor | None, str]:
    """Codes of at most so many pairs of held-out examples (draws of the prior where the model does not encode), the labels that
    each walk is under, and a title."""
    if Encodes not in model.capabilities:
        start, stop = examples.prior_codes(model, 2 * pairs, seed).chunk(2)
        return start, stop, asked.labels(model, None, pairs, seed), "walks between draws of the prior"
    part, held = examples.held_out(dataset)
    batch = examples.some(held, 2 * pairs, seed=seed)
    codes, n = examples.encode(model, batch), len(batch.x) // 2
    if not n:
        raise UsageError(f"a walk needs two examples, and the {part} part of {dataset.source} has one")
    label = examples.conditions(model, batch.label)
    title = f"walks between {part} examples" + (", of the class of the first" if label is not None else "")
    return codes[:n], codes[n : 2 * n], None if label is None else label[:n], title
