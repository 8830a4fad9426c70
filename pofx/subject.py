"""What the metrics of one evaluation share: the model, the data, samples drawn once, features computed once."""

import functools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from pofx import examples
from pofx import features as extractors
from pofx.baselines import NGram
from pofx.core import Batch, Model, UsageError
from pofx.data.dataset import Dataset, Split
from pofx.nn import labels
from pofx.progress import Steps

#: Samples that are drawn, and examples that expensive numbers are measured on; with `full`.
SOME, MANY = 2000, 10_000
#: Texts that are drawn; with `full`.
FEW_TEXTS, MANY_TEXTS = 64, 512
#: Training examples that samples may have been copied from, and numbers of which they consist, at most.
TRAINING, ELEMENTS = 60_000, 1 << 28

Item = TypeVar("Item")
Which = Literal["drawn", "real", "other", "training", "gaussian"]


class Subject:
    """A model on trial.

    Arguments:
        model: in evaluation mode.
        train: the data set that the model was trained on; baselines and features are fitted to its training part.
        dataset: what it is measured on. held, part: the part of it that training did not see, and its name.
        full: more samples, and likelihoods over the whole part.
        wanted: features to compare samples in, as `features.choose` takes them.
        info: run.json of the run, where there is one.
    """

    def __init__(
        self,
        model: Model,
        train: Dataset,
        dataset: Dataset,
        held: Split,
        part: str,
        *,
        full: bool = False,
        wanted: str = "auto",
        info: dict[str, Any] | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.model, self.train, self.dataset, self.held, self.part = model, train, dataset, held, part
        self.full, self.wanted, self.info = full, wanted, info or {}
        self._steps = steps
        self._seen: dict[tuple[Which, str], np.ndarray] = {}
        #: Seconds per sample of each part that was drawn.
        self.drawing: list[float] = []

    # ------------------------------------------------------------------------------------------------ examples

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """Held-out examples (windows of a text) on the model's device, with a bar: all in the order of the file, or, where there
        are more, `limit` of them in the order of `real`, since files are often sorted."""
        window, device = self.model.window, self.model.device
        total = math.ceil(len(self.held) / window) if self.held.tokens and window else len(self.held)
        if limit is None or (self.held.tokens and total <= limit):
            return self.track(self.held.batches(examples.PART, window=window, device=device), math.ceil(total / examples.PART))
        positions = self.held.positions(window, shuffle=0)[:limit].split(examples.PART)
        return self.track((self.held.batch(part, window=window, device=device) for part in positions), len(positions))

    def track(self, items: Iterable[Item], total: int) -> Iterator[Item]:
        """The items, with a bar where a person watches."""
        return iter(items) if self._steps is None else self._steps.track(items, total)

    @property
    def n(self) -> int:
        """Samples to draw, and real examples to compare them with."""
        if self.held.tokens:
            # A text in a random phase has up to one window less.
            windows = min(len(self.held), len(self.train.train)) // (self.model.window or 1) - 1
            return max(1, min(MANY_TEXTS if self.full else FEW_TEXTS, windows))
        return min(MANY if self.full else SOME, len(self.held), len(self.train.train))

    @functools.cached_property
    def drawn(self) -> Shaped[Tensor, "n ..."]:
        """n samples; a conditional model is asked for the labels of `real`."""
        asked, found = self.asked, []
        # Images of 0 and 1 are compared with draws of 0 and 1: a mean is grey.
        knobs: dict[str, Any] = {"mode": "draw"} if self.model.spec.bits == 1 and "mode" in examples.knobs_of(self.model) else {}
        for rows in self.track(torch.arange(self.n).split(examples.PART), math.ceil(self.n / examples.PART)):
            start = time.perf_counter()
            found.append(examples.draw(self.model, len(rows), first=int(rows[0]), label=None if asked is None else asked[rows], **knobs))
            self.drawing.append((time.perf_counter() - start) / len(rows))
        x = torch.cat(found)
        if bad := int((~x.isfinite()).flatten(1).any(1).sum()):
            raise UsageError(
                f"{bad:,} of {len(x):,} samples hold values that are not finite, so that nothing can be compared with them: take an earlier "
                "checkpoint, or train again with a lower learning rate"
            )
        return x

    @property
    def asked(self) -> Shaped[Tensor, "n ..."] | None:
        """The labels that a conditional model is asked for; None for other models."""
        label = examples.conditions(self.model, self.real.label)
        if label is None:
            return None
        # A held-out example whose label is not whole asks for nothing in particular.
        whole = labels.known(label)
        rows = torch.arange(len(label))
        return label[torch.where(whole, rows, rows[whole][rows % int(whole.sum())])] if bool(whole.any()) else None

    @functools.cached_property
    def real(self) -> Batch:
        """n held-out examples, in an order of the hash's choosing: files are often sorted."""
        return examples.some(self.held, self.n, window=self.model.window)

    @functools.cached_property
    def other(self) -> Batch:
        """n training examples: what real data are compared with for a floor."""
        return examples.some(self.train.train, self.n, window=self.model.window, seed=1)

    @functools.cached_property
    def training(self) -> Batch:
        """Training examples that samples may have been copied from, each once; at most 60,000 of them, or 1 GB."""
        elements = math.prod(self.model.spec.shape) or 1
        found = examples.some(self.train.train, max(2, min(TRAINING, ELEMENTS // elements)), window=self.model.window, seed=2)
        if self.held.tokens:
            return found
        # A copy of an example that stands there twice would have two nearest neighbours.
        place = {row.tobytes(): i for i, row in enumerate(found.x.numpy())}
        kept = torch.tensor(sorted(place.values()))
        return Batch(found.x[kept], None if found.label is None else found.label[kept])

    @functools.cached_property
    def gaussian(self) -> Shaped[Tensor, "n ..."]:
        """n samples of one Gaussian with the means and covariances of the training part: the trivial model."""
        kept, mean, scale, basis, spread = self._moments
        random = np.random.default_rng(0)
        codes = random.standard_normal((self.n, kept)) * spread
        x = torch.from_numpy((mean + scale * (codes @ basis)).astype(np.float32)).view(self.n, *self.model.spec.shape)
        return x.clamp(0, 1) if self.model.spec.kind == "images" else x

    @functools.cached_property
    def bigram_texts(self) -> Int64[Tensor, "n window"]:
        """n texts of a bigram of the training part: the trivial model of tokens."""
        return NGram(self.train.train.x, self.model.spec.vocabulary).sample(self.n, self.model.window or 1)

    @functools.cached_property
    def _moments(self) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        from sklearn.decomposition import PCA

        rows = extractors.training(self.train).x.flatten(1).numpy().astype(np.float64)
        mean, scale = rows.mean(0), np.maximum(rows.std(0), 1e-6)
        pca = PCA(min(256, rows.shape[1], len(rows) - 1), random_state=0).fit((rows - mean) / scale)
        return pca.n_components_, mean + scale * pca.mean_, scale, pca.components_, np.sqrt(pca.explained_variance_)

    # ------------------------------------------------------------------------------------------------ features

    @functools.cached_property
    def features(self) -> extractors.Features:
        """What samples are compared in."""
        return extractors.choose(self.wanted, self.train)

    @functools.cached_property
    def components(self) -> extractors.Features:
        """Principal components: close to the values themselves, learned from no label."""
        return extractors.components(self.train)

    def seen(self, which: Which, by: extractors.Features | None = None) -> Float[np.ndarray, "n features"]:
        """Features of samples, of held-out, of training examples or of the Gaussian's, computed once."""
        by = by or self.features
        key = (which, by.name)
        if key not in self._seen:
            found = getattr(self, which)
            self._seen[key] = by(found.x if isinstance(found, Batch) else found)
        return self._seen[key]
