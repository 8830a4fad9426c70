"""Directions in the space of codes along which what is decoded becomes one of a class, gains an attribute or grows in a value: found,
measured, kept, used in sampling."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from pofx import checkpoint, discovery, examples, figures
from pofx.core import Attributes, Classes, Classifies, CodePrior, Decodes, Encodes, Label, Model, Noise, UsageError, Values, mix
from pofx.data.files import whole
from pofx.data.images import grid
from pofx.data.labels import adapt, from_array
from pofx.progress import Steps
from pofx.run import Run

#: Draws of the prior that are named to find directions, and that directions are measured on; examples that are named at once.
CODES, MEASURED, PART = 5000, 200, 256
#: How far codes are moved, in standard deviations of the prior.
STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
#: Share of the codes that is left out of the fit and measures it. A class has so many codes at least.
HELD, LEAST = 0.2, 10
#: What the logistic regression's C is, times the codes that it is fitted to.
PENALTY = 10.0
FOLDER = "directions"


class Judge:
    """Names the class of what is decoded.

    Arguments:
        model: with `Classifies`. names: of its classes.
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(names)

    def __call__(self, x: Tensor) -> Int64[np.ndarray, " n"]:
        """The likeliest class of each example."""
        with examples.asking(self.model):
            found = [cast(Classifies, self.model).classify(part.to(self.model.device)).argmax(1).cpu() for part in x.split(PART)]
        return torch.cat(found).numpy()


def judge(model: Model, of: Run, reference: str | None) -> Judge:
    """The classifier of a run `reference`, else one of the labels of the data that `of` was trained on.

    Raises `UsageError` where these have no classes, and for a run that cannot name what `model` decodes.
    """
    from pofx import features

    if reference is None:
        dataset = of.dataset()
        if not isinstance(dataset.spec.label, Classes):
            raise UsageError(f"{dataset.source} has no classes to name what is decoded: train a classifier and give --classifier RUN")
        return Judge(features.classifier(dataset)[0], dataset.spec.label.names)
    found = Run.open(reference).model()
    discovery.require(found, Classifies, what="--classifier")
    if (found.spec.kind, found.spec.shape) != (model.spec.kind, model.spec.shape):
        raise UsageError(
            f"{reference} names {found.spec.kind} of shape {found.spec.shape}, and what is decoded has the shape {model.spec.shape}: "
            "train a classifier on the same data"
        )
    assert isinstance(found.spec.label, Classes)
    return Judge(found, found.spec.label.names)


@dataclasses.dataclass(frozen=True)
class Directions:
    """Directions in the space of codes, one a class, an attribute or a value, each as long as one standard deviation of the prior.

    names: of what they lead to. vectors: (names, latent). accuracy: share of codes left out of the fit whose class, or attributes, are
    named right by the linear map that the directions come from (of values the share of their variance that it explains); often: that
    of always naming the commonest. each: (accuracy, often) of every single attribute or value; none for classes.
    """

    names: tuple[str, ...]
    vectors: Float[Tensor, "names latent"]
    accuracy: float
    often: float
    each: tuple[tuple[float, float], ...] = ()


def find(z: Float[Tensor, "n latent"], label: Int64[np.ndarray, " n"], names: Sequence[str], prior: tuple[Tensor, Tensor]) -> Directions:
    """The directions of logistic regression from codes to classes,

        P(c|z) = softmax_c(w_c . y + b_c),    y = (z - mean) / scale;    direction of c: scale w_c / |w_c|.

    Classes with fewer than ten codes have none. The regression minimises the mean cross-entropy + |w|^2 / 20.

    Arguments:
        label: of each code, -1 where it is not known. prior: mean and scale of each unit under the model's prior.
    Raises `UsageError` where fewer than two classes are left.

    References:
        Interpreting the Latent Space of GANs for Semantic Face Editing (Shen et al., 2020), https://arxiv.org/abs/1907.10786
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    mean, scale = prior
    counts = np.bincount(label[label >= 0], minlength=len(names))
    classes = np.flatnonzero(counts >= LEAST)
    if len(classes) < 2:
        some = ", ".join(f"{names[i]} {counts[i]:,}" for i in np.argsort(-counts)[:3] if counts[i])
        raise UsageError(
            f"directions part two classes with {LEAST} codes each at least, and the codes are of {some or 'none'}: give more codes"
        )
    rows = np.isin(label, classes)
    y = examples.standard_scores(z, mean, scale).numpy()[rows]
    target = label[rows]
    fit_y, held_y, fit_target, held_target = train_test_split(y, target, test_size=HELD, random_state=0, stratify=target)
    # Penalised so much, a direction points at the middle of its class, and not only across the border to its neighbours: at +3 sd
    # in a GAN of Fashion-MNIST, 63 % instead of 47 % of the examples were named as they should be, in the mean over classes.
    fitted = LogisticRegression(C=PENALTY / len(fit_y), max_iter=1000).fit(fit_y, fit_target)
    weights = fitted.coef_ if len(classes) > 2 else np.concatenate((-fitted.coef_, fitted.coef_))
    unit = torch.from_numpy(weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)).to(torch.float32)
    return Directions(
        names=tuple(names[i] for i in classes),
        vectors=unit * scale,
        accuracy=float(fitted.score(held_y, held_target)),
        often=float(counts.max() / counts.sum()),
    )


def find_each(
    z: Float[Tensor, "n latent"], label: Shaped[np.ndarray, "n names"], meaning: Attributes | Values, prior: tuple[Tensor, Tensor]
) -> Directions:
    """A direction for each attribute or value by a regression of its own from codes: for attributes a logistic one, for values of
    their standard scores a linear one,

        P(a|z) = sigmoid(w . y + b)  or  E v = w . y + b,    y = (z - mean) / scale;    direction: scale w / |w|.

    An attribute with fewer than ten codes of either answer has none, nor has a value with fewer than twenty or that never changes.
    The penalty is that of `find`.

    Arguments:
        label: -1, or NaN for values, where it is not known. prior: mean and scale of each unit under the model's prior.
    Raises `UsageError` where none is left.

    References:
        Interpreting the Latent Space of GANs for Semantic Face Editing (Shen et al., 2020), https://arxiv.org/abs/1907.10786
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import train_test_split

    mean, scale = prior
    y = examples.standard_scores(z, mean, scale).numpy()
    binary, names, vectors, scores = isinstance(meaning, Attributes), [], [], []
    for name, column in zip(meaning.names, label.T, strict=True):
        known = column >= 0 if binary else np.isfinite(column)
        target = column[known] if binary else column[known].astype(np.float64)
        if (binary and np.bincount(target, minlength=2).min() < LEAST) or len(target) < 2 * LEAST or not target.std():
            continue
        if not binary:
            target = (target - target.mean()) / target.std()
        fit_y, held_y, fit_target, held_target = train_test_split(
            y[known], target, test_size=HELD, random_state=0, stratify=target if binary else None
        )
        regression = LogisticRegression(C=PENALTY / len(fit_y), max_iter=1000) if binary else Ridge(alpha=len(fit_y) / PENALTY)
        fitted = regression.fit(fit_y, fit_target)
        weights = fitted.coef_.reshape(-1)
        names.append(name)
        vectors.append(weights / max(np.linalg.norm(weights), 1e-12))
        scores.append((float(fitted.score(held_y, held_target)), float(max(target.mean(), 1 - target.mean())) if binary else 0.0))
    if not names:
        what = f"{LEAST} codes with an attribute and as many without it" if binary else f"{2 * LEAST} codes with a value that changes"
        raise UsageError(f"a direction takes {what}, and none of {', '.join(meaning.names[:3])} has them: give more codes")
    accuracy, often = np.mean(scores, axis=0).tolist()
    return Directions(tuple(names), torch.from_numpy(np.stack(vectors)).to(torch.float32) * scale, accuracy, often, tuple(scores))


def own_codes(model: Model, of: Run, n: int, steps: Steps | None = None) -> tuple[Float[Tensor, "n latent"], Shaped[np.ndarray, "n ..."]]:
    """Codes that the model itself gives to at most n training examples, with their labels.

    Raises `UsageError` for a model that does not encode.
    """
    if Encodes not in model.capabilities:
        raise UsageError(
            f"this {of.info['model']} does not encode, so that nothing tells the attributes of codes: give some with labels as --codes, "
            "which `pofx invert` writes, or name classes with --classifier"
        )
    train = of.dataset().train
    parts = train.positions(shuffle=0)[:n].split(PART)
    batches = [train.batch(part) for part in (parts if steps is None else steps.track(parts, len(parts)))]
    z = torch.cat([examples.encode(model, batch) for batch in batches]).flatten(1)
    return z, torch.cat([batch.label for batch in batches if batch.label is not None]).numpy()


@dataclasses.dataclass(frozen=True)
class Effect:
    """What moving codes along directions does to the class that is named.

    shown: share of examples that are named the direction's class at each of `STRENGTHS`. changed: share of examples whose class is
    another one than before they were moved. Both (directions, strengths).
    """

    shown: Float[np.ndarray, "directions strengths"]
    changed: Float[np.ndarray, "directions strengths"]


def draws(model: Model, n: int, seed: int) -> Float[Tensor, "n latent"]:
    """n codes of the prior that samples are drawn from, on the CPU."""
    fitted = cast(Decodes, model).fitted
    return examples.prior_codes(model, n, seed) if fitted is None else fitted.draw(Noise(seed, n))


def named(model: Model, judge: Judge, z: Float[Tensor, "n latent"], steps: Steps | None = None) -> Int64[np.ndarray, " n"]:
    """The class of what each code is decoded to."""
    parts = z.split(PART)
    return np.concatenate([judge(examples.decode(model, part)) for part in (parts if steps is None else steps.track(parts, len(parts)))])


def effect(model: Model, found: Directions, judge: Judge, z: Float[Tensor, "n latent"], steps: Steps | None = None) -> Effect:
    """How often the answers of the judge change as codes are moved along each direction."""
    numbers = [judge.names.index(name) for name in found.names]
    before = judge(examples.decode(model, z))
    shown, changed = np.zeros((2, len(numbers), len(STRENGTHS)))
    moves = [(i, j) for i in range(len(numbers)) for j in range(len(STRENGTHS))]
    for i, j in moves if steps is None else steps.track(moves, len(moves)):
        after = before if STRENGTHS[j] == 0 else judge(examples.decode(model, z + STRENGTHS[j] * found.vectors[i]))
        shown[i, j], changed[i, j] = (after == numbers[i]).mean(), (after != before).mean()
    return Effect(shown, changed)


def picture(model: Model, found: Directions, seen: Effect, judge: Judge, z: Float[Tensor, "n latent"]) -> Figure:
    """Of images a row for each direction, with one example of another class moved along it; of other data the shares as curves."""
    title = "codes moved along the direction of each class"
    still = STRENGTHS.index(0.0)
    if model.spec.kind == "images":
        named = judge(examples.decode(model, z))
        moved = []
        for i, name in enumerate(found.names):
            others = np.flatnonzero(named != judge.names.index(name))
            start = z[int(others[i % len(others)]) if len(others) else 0]
            moved += [start + strength * found.vectors[i] for strength in STRENGTHS]
        rows = [f"{figures.shorten(name)}\n{seen.shown[i, still]:.0%} to {seen.shown[i, -1]:.0%}" for i, name in enumerate(found.names)]
        columns = [f"{strength:+g} sd" if strength else "0" for strength in STRENGTHS]
        image = grid(examples.decode(model, torch.stack(moved)), len(STRENGTHS), gap=figures.GAP)
        below = f"percent: share of {len(z)} that are named so, unmoved and at {columns[-1]}"
        return figures.picture(image, title, rows=rows, columns=columns, below=below)
    figure, axes = figures.canvas("share of examples that are named a class, as codes are moved along its direction", 7, 4.5)
    for i, name in enumerate(found.names):
        axes.plot(STRENGTHS, seen.shown[i], color=figures.colour(i), marker=".", label=figures.shorten(name))
    axes.set(xlabel="moved by, in standard deviations of the prior", ylabel="share named so", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8)
    return figure


def strip(model: Model, found: Directions, z: Float[Tensor, "n latent"]) -> Figure | None:
    """A row for each direction, with one example moved along it; None for anything but images."""
    if model.spec.kind != "images":
        return None
    moved = [z[i % len(z)] + strength * vector for i, vector in enumerate(found.vectors) for strength in STRENGTHS]
    columns = [f"{strength:+g} sd" if strength else "0" for strength in STRENGTHS]
    image = grid(examples.decode(model, torch.stack(moved)), len(STRENGTHS), gap=figures.GAP)
    return figures.picture(image, "codes moved along each direction", rows=[figures.shorten(name) for name in found.names], columns=columns)


def describe(found: Directions, seen: Effect | None) -> str:
    """The accuracy of the linear map, and a line for each direction."""
    still, two = STRENGTHS.index(0.0), STRENGTHS.index(2.0)
    width = max(map(len, found.names))
    if seen is None:
        told = [f"{right:.1%} of held-out codes are told right ({often:.1%} are of the commoner kind)" for right, often in found.each]
        explained = [f"{right:.0%} of its variance over held-out codes is explained" for right, _ in found.each]
        said = told if found.often else explained
        return "\n".join(f"{name:<{width}}  {line} by a linear map" for name, line in zip(found.names, said, strict=True))
    lines = [f"a linear map names {found.accuracy:.1%} of held-out codes right ({found.often:.1%} are of the commonest class)"]
    lines += [
        f"{name:<{width}}  {seen.shown[i, still]:4.0%} named so, {seen.shown[i, two]:4.0%} at +2 sd, where {seen.changed[i, two]:4.0%} of the "
        "answers have changed"
        for i, name in enumerate(found.names)
    ]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------- on disk


def speaking(model: Model, run: Run) -> None:
    """Raises `UsageError` for a model whose codes say nothing of the labels of its data."""
    if getattr(model, "condition", None) is not None:
        raise UsageError(
            f"this {run.info['model']} is told the label beside its codes, which therefore say nothing of it: ask for one with "
            "`pofx sample RUN --label`, or name other classes with --classifier or --codes of `pofx directions`"
        )


def default(run: Run) -> pathlib.Path:
    """Where the directions of a run's chosen checkpoint are kept."""
    return run.path / FOLDER / f"{run.step}.npz"


def save(found: Directions, seen: Effect | None, run: Run, path: pathlib.Path) -> None:
    """Writes the directions of the run's chosen checkpoint, and what they do where that was measured."""
    effect = {} if seen is None else {"strengths": np.array(STRENGTHS), "shown": seen.shown, "changed": seen.changed}
    with whole(path) as temporary:
        np.savez_compressed(
            temporary, vectors=found.vectors.numpy(), names=np.array(found.names), accuracy=found.accuracy, often=found.often,
            each=np.array(found.each), checkpoint=np.array(_hash(run)), **effect,
        )  # fmt: skip


def read(run: Run, path: pathlib.Path) -> Directions:
    """Directions that `save` wrote. Raises `UsageError` where they are missing, damaged, or of another checkpoint."""
    again = f"`pofx directions {run.path}@{run.step}` finds some"
    if not path.is_file():
        raise UsageError(f"there are no directions {path}: {again}")
    content = _arrays(path, ("vectors", "names", "accuracy", "often", "checkpoint"))
    if str(content["checkpoint"]) != _hash(run):
        raise UsageError(f"the directions in {path} are of another checkpoint than {run.path}@{run.step}: {again}")
    return Directions(
        names=tuple(content["names"].tolist()),
        vectors=torch.from_numpy(content["vectors"]),
        accuracy=float(content["accuracy"]),
        often=float(content["often"]),
    )


def _arrays(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name. Raises `UsageError` where it lacks one or is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if missing := [name for name in names if name not in archive]:
                raise UsageError(f"{path} holds {', '.join(archive.files) or 'nothing'}, and no {missing[0]}: give another file")
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a whole .npz file: write it again") from error


def _hash(run: Run) -> str:
    assert run.step is not None
    return checkpoint.hash_of(checkpoint.folder(run.checkpoints, run.step))


def labelled_codes(path: pathlib.Path, model: Model, meaning: Label) -> tuple[Float[Tensor, "n latent"], Shaped[np.ndarray, "n ..."]]:
    """`z` and `label` of a file that `pofx encode` or `pofx invert` wrote, of classes in the numbering of `meaning`.

    Raises `UsageError` for other files, codes of another length and labels of another kind.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}: `pofx encode RUN --out codes.npz` writes one")
    content = _arrays(path, ("z", "label"))
    z, latent = content["z"], cast(Decodes, model).prior().event_shape.numel()
    if z.ndim != 2 or z.shape[1] != latent or z.dtype.kind != "f" or not np.isfinite(z).all():
        raise UsageError(f"z of {path} has the shape {z.shape}, and codes of this model are finite rows of {latent}: give its own codes")
    labels = from_array(content["label"], None if isinstance(meaning, Classes) else meaning.names, source=str(path))
    if len(labels.value) != len(z):
        raise UsageError(f"{path} has {len(z):,} codes and {len(labels.value):,} labels: give one each")
    return torch.from_numpy(z.astype(np.float32)), adapt(labels, meaning).value.numpy()


# ------------------------------------------------------------------------------------------------------------ in sampling


class Moved(CodePrior):
    """The prior that a model draws its codes from, moved by one step.

    Arguments:
        step: (latent,), added to every code.
    """

    def __init__(self, model: Model, step: Float[Tensor, " latent"]) -> None:
        self.base, self.prior, self.step = cast(Decodes, model).fitted, cast(Decodes, model).prior(), step

    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """Under N(mean, scale^2) the same random numbers as without the step. Raises `UsageError` for a temperature of a prior
        that is no Gaussian."""
        return self._draw(noise, temperature) + self.step.to(noise.device)

    def _draw(self, noise: Noise, temperature: float) -> Float[Tensor, "n latent"]:
        if self.base is not None:
            return self.base.draw(noise, temperature=temperature)
        prior = self.prior
        if isinstance(prior, Independent) and isinstance(prior.base_dist, Normal):
            return prior.mean + temperature * prior.stddev * noise.normal(*prior.event_shape)
        if isinstance(prior, MultivariateNormal):
            return prior.loc + temperature * noise.normal(*prior.event_shape) @ prior.scale_tril.T
        if temperature != 1:
            raise UsageError("temperature beside a direction is for a Gaussian prior, and this one is none: leave one of them out")
        with torch.random.fork_rng(devices=[]):
            rows = [torch.manual_seed(mix(noise.seed, noise.first + i, FOLDER)) and prior.sample() for i in range(noise.n)]
        return torch.stack(rows).to(noise.device)


def move(model: Model, run: Run, name: str, strength: float, path: str | None) -> None:
    """Has `model` draw its codes moved by so many standard deviations of the prior along the direction of a class.

    Arguments:
        path: of the directions; None: those of the run.
    Raises `UsageError` where there are none, or none of that name.
    """
    discovery.require(model, Decodes, what="--direction")
    if path is None and not default(run).exists():
        speaking(model, run)
    found = read(run, default(run) if path is None else pathlib.Path(path))
    if name not in found.names:
        raise UsageError(discovery.unknown("direction", name, list(found.names)))
    cast(Any, model).fitted = Moved(model, strength * found.vectors[found.names.index(name)])
