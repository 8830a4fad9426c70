"""Finds the codes behind given examples: z such that decode(z) is x, by gradient descent from several draws of the prior."""

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pofx import discovery, examples
from pofx.core import Batch, Decodes, Encodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.files import whole_folder
from pofx.data.labels import restore
from pofx.metrics.reconstruction import psnr
from pofx.progress import Steps

#: Draws of the prior among which starts are chosen, and numbers of which their data consist, at most; examples that are sought
#: at once.
DRAWS, ELEMENTS, PART = 1024, 1 << 25, 16
#: Share of the steps over which the rate falls to 0.
COOLING = 0.5
#: Examples in the picture.
SHOWN = {"images": 40, "vectors": 500, "sequences": 4}

#: From examples to vectors, with gradients.
Map = Callable[[Tensor], Float[Tensor, "rows features"]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How codes are sought.

    starts: draws of the prior that are gone out from, for each example. steps: moves from each. lr: the rate of the first half
    of them, in standard deviations of the prior. feature_weight, prior_weight: of the distance between features and of the
    code's own length, beside the squared error. seed: of the draws.

    Raises `UsageError` for values out of bounds.
    """

    starts: int = 4
    steps: int = 300
    lr: float = 0.1
    feature_weight: float = 0.01
    prior_weight: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("starts", 1), ("steps", 1), ("feature_weight", 0), ("prior_weight", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise UsageError(f"{name.replace('_', '-')} must be at least {least}, not {getattr(self, name):g}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr must be above 0, not {self.lr:g}")


@dataclasses.dataclass(frozen=True)
class Inversion:
    """What was found for each of n examples, on the CPU.

    codes: z. x: decode(z). error: its mean squared error. drawn: the least mean squared error of the draws of the prior.
    """

    codes: Float[Tensor, "n latent"]
    x: Shaped[Tensor, "n ..."]
    error: Float[Tensor, " n"]
    drawn: Float[Tensor, " n"]


def squares(x: Shaped[Tensor, "rows ..."], target: Shaped[Tensor, "rows ..."]) -> Float[Tensor, " rows"]:
    """The mean squared error of each row."""
    return (x - target).flatten(1).square().mean(1)


def invert(
    model: Model, batch: Batch, settings: Settings | None = None, *, features: Map | None = None, bar: Steps | None = None
) -> Inversion:
    """Codes whose data are nearest to the examples of a batch,

        min over z    mean |decode(z) - x|^2 + w mean |f(decode(z)) - f(x)|^2 + v mean y^2,    z = mean + scale y,

    by Adam from those draws of the prior that are nearest to each example, and from its own code where the model encodes; mean
    and scale are those of the prior, w and v the two weights. A conditional model is given the labels of the batch.

    Arguments:
        features: f, with gradients; None: squared errors alone.
    Raises `UsageError` for texts, and for models whose data do not change smoothly with the code.

    References:
        Generative Visual Manipulation on the Natural Image Manifold (Zhu et al., 2016), https://arxiv.org/abs/1609.03552
        Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), section 5, https://arxiv.org/abs/1912.04958
    """
    settings = settings or Settings()
    discovery.require(model, Decodes, what="invert")
    name = type(model).__name__
    if model.spec.kind == "tokens":
        raise UsageError("a text does not change smoothly with its code, so that no gradient leads to it: take `pofx encode`")
    if examples.discrete(model.prior()):  # type: ignore[attr-defined]
        raise UsageError(f"each code of this {name} is one of finitely many, and no gradient leads to it: take `pofx encode`")
    label = examples.conditions(model, batch.label)
    found = []
    with _still(model):
        search = _Search(model, settings, features if settings.feature_weight else None)
        rows = torch.arange(len(batch.x)).split(PART)
        for part in rows:
            if bar is not None:
                bar.step(f"examples {int(part[0]) + 1} to {int(part[-1]) + 1}")
            steps = range(settings.steps + 1)
            of = None if label is None else label[part].to(model.device)
            found.append(search(batch.x[part].to(model.device), of, iter(steps) if bar is None else bar.track(steps, len(steps))))
    return Inversion(*(torch.cat([getattr(part, field.name) for part in found]) for field in dataclasses.fields(Inversion)))


@contextlib.contextmanager
def _still(model: Model) -> Iterator[None]:
    """Evaluation mode, with gradients of no parameter; both are as before afterwards."""
    training, moved = model.training, [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in moved:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moved:
            parameter.requires_grad_(True)
        model.train(training)


class _Search:
    """Seeks codes in standard deviations y of the prior: z = mean + scale y. Each row is moved by itself, since Adam mixes no two
    numbers."""

    def __init__(self, model: Model, settings: Settings, features: Map | None) -> None:
        self.model, self.settings, self.features = model, settings, features
        self.mean, self.scale = (moment.to(model.device) for moment in examples.prior_scale(model))
        numbers = max(1, math.prod(model.spec.shape))
        n = max(settings.starts, min(DRAWS, ELEMENTS // numbers))
        self.draws = self._standardised(examples.prior_codes(model, n, settings.seed).to(model.device))

    def _standardised(self, z: Float[Tensor, "rows latent"]) -> Float[Tensor, "rows latent"]:
        return examples.standard_scores(z, self.mean, self.scale)

    def _decode(self, y: Float[Tensor, "rows latent"], label: Tensor | None) -> Tensor:
        return self.model.decode(self.mean + self.scale * y, label=label)  # type: ignore[attr-defined, no-any-return]

    def _seen(self, x: Tensor) -> Float[Tensor, "rows features"]:
        """What squared errors are taken of: x itself, and features, each weighted so that squares add up to their means."""
        parts = [x.flatten(1) / math.sqrt(x[0].numel())]
        if self.features is not None:
            features = self.features(x)
            parts.append(features * math.sqrt(self.settings.feature_weight / features.shape[1]))
        return torch.cat(parts, 1)

    def __call__(self, x: Tensor, label: Tensor | None, steps: Iterator[int]) -> Inversion:
        """The codes of some examples."""
        with torch.no_grad():
            target = self._seen(x)
            starts, drawn = self._starts(x, target, label)
        count = starts.shape[1]
        of = None if label is None else label.repeat_interleave(count, 0)
        y, cost = self._descend(starts.flatten(0, 1), target.repeat_interleave(count, 0), of, steps)
        best = cost.view(-1, count).argmin(1)
        y = y.view(*starts.shape)[torch.arange(len(x), device=x.device), best]
        with torch.no_grad():
            again = self._decode(y, label)
        return Inversion((self.mean + self.scale * y).cpu(), again.cpu(), squares(again, x).cpu(), drawn.cpu())

    def _starts(
        self, x: Tensor, target: Tensor, label: Tensor | None
    ) -> tuple[Float[Tensor, "rows starts latent"], Float[Tensor, " rows"]]:
        """The draws whose data are nearest to each example, behind the example's own code where the model encodes; and the least
        squared error of any draw."""
        starts = torch.empty(len(x), self.settings.starts, self.draws.shape[1], device=x.device)
        drawn = torch.empty(len(x), device=x.device)
        kinds, kind = (None, torch.zeros(len(x), dtype=torch.int64)) if label is None else label.unique(dim=0, return_inverse=True)
        for i in kind.unique():
            rows = kind == i
            made, seen = self._drawn if kinds is None else self._made(kinds[i])
            starts[rows] = self.draws[torch.cdist(target[rows], seen).topk(self.settings.starts, largest=False).indices]
            nearest = torch.cdist(x[rows].flatten(1), made.flatten(1)).argmin(1)
            drawn[rows] = squares(made[nearest], x[rows])
        if Encodes in self.model.capabilities:
            own = self._standardised(self.model.encode(x, label=label))  # type: ignore[attr-defined]
            starts = torch.cat((own[:, None], starts), 1)
        return starts, drawn

    def _made(self, label: Tensor | None = None) -> tuple[Shaped[Tensor, "draws ..."], Float[Tensor, "draws seen"]]:
        """The data of all draws under one label, and what squared errors are taken of."""
        parts = self.draws.split(examples.PART)
        made = [self._decode(part, None if label is None else label.expand(len(part), *label.shape)) for part in parts]
        return torch.cat(made), torch.cat([self._seen(part) for part in made])

    @functools.cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        return self._made()

    def _descend(
        self, y: Float[Tensor, "rows latent"], target: Tensor, label: Tensor | None, steps: Iterator[int]
    ) -> tuple[Float[Tensor, "rows latent"], Float[Tensor, " rows"]]:
        """The best code that each row passes, and what it costs."""
        settings = self.settings
        y = y.clone().requires_grad_(True)
        optimizer: Any = torch.optim.Adam([y])
        best, least = y.detach().clone(), torch.full((len(y),), math.inf, device=y.device)
        for step in steps:
            left = min(1.0, (1 - step / settings.steps) / COOLING)
            optimizer.param_groups[0]["lr"] = settings.lr * 0.5 * (1 - math.cos(math.pi * left))
            x = self._decode(y, label)
            if not x.requires_grad:
                raise UsageError(
                    f"what this {type(self.model).__name__} decodes does not change smoothly with the code: no gradient leads to it"
                )
            cost = (self._seen(x) - target).square().sum(1) + settings.prior_weight * y.square().mean(1)
            better = cost.detach() < least
            least, best = torch.where(better, cost.detach(), least), torch.where(better[:, None], y.detach(), best)
            optimizer.zero_grad()
            cost.sum().backward()
            optimizer.step()
        return best, least


# ---------------------------------------------------------------------------------------------------------- what is shown


def describe(found: Inversion, dataset: Dataset) -> str:
    """How near the results are to the examples, beside the nearest draws of the prior, in a sentence."""
    n = len(found.error)
    if dataset.spec.kind == "images":
        ours, theirs = (-10 * error.double().clamp(min=1e-8).log10() for error in (found.error, found.drawn))
        between = f" ({ours.min():.1f} to {ours.max():.1f})" if n > 1 else ""
        return f"{n:,} images, PSNR {ours.mean():.1f} dB{between}; the nearest draws of the prior {theirs.mean():.1f} dB"
    ours, theirs = (error.double().mean().sqrt() for error in (found.error, found.drawn))
    return (
        f"{n:,} {dataset.spec.kind}, root mean squared error {ours:.4f} in standard deviations of the data; the nearest draws of the "
        f"prior {theirs:.4f}"
    )


def write(found: Inversion, batch: Batch, dataset: Dataset, path: pathlib.Path) -> None:
    """Writes the codes (codes.npy; with labels codes.npz), what they are decoded to, and a picture of both, into a folder, whole or
    not at all. Raises `UsageError` where it holds something already."""
    from pofx import figures
    from pofx.figures.reconstructions import pairs

    with whole_folder(path) as folder:
        z = found.codes.numpy()
        np.save(folder / "codes.npy", z)
        meaning = dataset.spec.label
        label = {} if meaning is None or batch.label is None else {"label": restore(batch.label, meaning)}
        np.savez_compressed(folder / "codes.npz", z=z, **label)
        images = dataset.spec.kind == "images"
        dataset.codec.write(found.x, folder / ("images" if images else f"results{'.csv' if dataset.spec.kind == 'vectors' else '.npz'}"))
        some = slice(0, SHOWN[dataset.spec.kind])
        notes = [f"{value:.1f}" for value in psnr(batch.x[some], found.x[some])] if images else ()
        title = "examples and what the found codes are decoded to" + (", with PSNR in dB" if images else "")
        figures.save(pairs(dataset, batch.x[some], found.x[some], title, notes), folder / "pairs.png")
