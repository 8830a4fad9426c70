"""Priors fitted to the codes of training data after training (`pofx fit-prior`), and kept in the run: RUN/priors/NAME.

A plain autoencoder cares for reconstructions alone, and no law says where its codes lie: a Gaussian of their mean and
covariance covers much that is nobody's code, and samples from there look it. A density that is fitted to the codes once
training is over mends that without touching the model (Ghosh et al., 2020, https://arxiv.org/abs/1903.12436; for
variational autoencoders, whose codes do not fill their prior either, Dai and Wipf, 2019, https://arxiv.org/abs/1903.05789).

One file = one kind of density, a class `Prior`. A prior is bound to the checkpoint whose codes it was fitted to.
"""

import json
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from pofx import checkpoint, discovery
from pofx.core import CodePrior, Decodes, Model, Noise, UsageError

if TYPE_CHECKING:
    from pofx.progress import Steps
    from pofx.run import Run

#: The folder of a run, and the file of tensors in each prior's own folder.
FOLDER, TENSORS = "priors", "prior.safetensors"
#: What a person calls the prior that the model was trained with.
OWN = "own"


class Density(ABC):
    """A distribution over codes in their principal axes: centred, variance 1 on average, float64 on the CPU.

    Attributes:
        bound: whether `log_prob` is a lower bound only.
    """

    bound: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, y: Float[Tensor, "n features"], held: Float[Tensor, "m features"], *, seed: int, steps: "Steps") -> Self:
        """The density of the codes `y`, with what must be chosen chosen by the likelihood of the codes `held`; further
        keyword-only arguments are what a person may choose instead."""

    @abstractmethod
    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n features"]:
        """One code for each row of `noise`."""

    @abstractmethod
    def log_prob(self, y: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """log p(y)."""

    @abstractmethod
    def state(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """What `restore` takes: JSON-able settings, and tensors."""

    @classmethod
    @abstractmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The density whose `state` this is."""

    @abstractmethod
    def describe(self) -> str:
        """What was chosen, in a few words."""


class Fitted(CodePrior):
    """A density over codes, z = mean + scale y A with y from `density`; random numbers and arithmetic do not depend on the device.

    Arguments:
        density: of y, the codes in their principal axes.
        mean: (latent,). axes: A, orthonormal rows (features, latent); directions in which codes do not vary have none.
        scale: of y, one number for all axes.
        name: under which it is kept, with the start of its hash, once it is.
    """

    def __init__(self, density: Density, mean: Tensor, axes: Tensor, scale: Tensor, *, name: str = "") -> None:
        self.density, self.mean, self.axes, self.scale, self.name = density, mean, axes, scale, name

    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """One code for each row of `noise`, float32 on its device."""
        y = self.density.draw(noise, temperature=temperature)
        return (self.mean + self.scale * y @ self.axes).to(torch.float32).to(noise.device)

    def log_prob(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, " n"]:
        """log p(z) in nats, float64; where codes do not vary in all directions, of their coordinates in those in which they do."""
        return self.density.log_prob(place(z, self.mean, self.axes, self.scale)) - len(self.axes) * self.scale.log()


def place(z: Float[Tensor, "n latent"], mean: Tensor, axes: Tensor, scale: Tensor) -> Float[Tensor, "n features"]:
    """y of z = mean + scale y A, in float64 on the CPU."""
    return (z.cpu().to(torch.float64) - mean) @ axes.T / scale


# ---------------------------------------------------------------------------------------------------------- on disk


def folder(run: "Run", name: str) -> pathlib.Path:
    """Where a prior is kept."""
    return run.path / FOLDER / name


def names(run: "Run") -> list[str]:
    """The priors that are kept, sound or not."""
    parent = run.path / FOLDER
    return sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")) if parent.is_dir() else []


def save(run: "Run", name: str, kind: str, fitted: Fitted, facts: Mapping[str, Any]) -> Fitted:
    """Keeps a prior of the run's chosen checkpoint, whole or not at all, in the place of one of that name, and returns it named.

    Arguments:
        facts: what else to write down of it, JSON-able.
    """
    settings, tensors = fitted.density.state()
    numbers = [description["number"] for other in names(run) if (description := _description(run, other)) is not None]
    description = {
        **facts,
        "kind": kind,
        "settings": settings,
        "checkpoint": _hash(run),
        "step": run.step,
        # The newest has the highest: no clock decides.
        "number": max(numbers, default=0) + 1,
    }
    own = {"mean": fitted.mean, "axes": fitted.axes, "scale": fitted.scale}
    content = checkpoint.to_bytes({**own, **{f"density/{key}": value for key, value in tensors.items()}})
    path = folder(run, name)
    checkpoint.sweep(path.parent)
    checkpoint.save_folder(path, [(checkpoint.DESCRIPTION, checkpoint.to_json(description)), (TENSORS, content)])
    return Fitted(fitted.density, fitted.mean, fitted.axes, fitted.scale, name=_label(run, name))


def _hash(run: "Run") -> str:
    assert run.step is not None
    return checkpoint.hash_of(checkpoint.folder(run.checkpoints, run.step))


def _label(run: "Run", name: str) -> str:
    return f"{name} {checkpoint.hash_of(folder(run, name))[:8]}"


def _description(run: "Run", name: str) -> dict[str, Any] | None:
    try:
        return _verified(run, name)[0]
    except checkpoint.Damaged:
        return None


def _verified(run: "Run", name: str) -> tuple[dict[str, Any], bytes]:
    contents = checkpoint.verify(folder(run, name), {checkpoint.DESCRIPTION, TENSORS})
    description: dict[str, Any] = json.loads(contents[checkpoint.DESCRIPTION])
    return description, contents[TENSORS]


def read(run: "Run", name: str) -> tuple[dict[str, Any], Fitted]:
    """A kept prior and what was written down of it, every byte verified. Raises `checkpoint.Damaged` with a sentence."""
    description, content = _verified(run, name)
    try:
        tensors = parse_tensors(content)
        own = {key: tensors.pop(key) for key in ("mean", "axes", "scale")}
        kind = discovery.load("priors", description["kind"]).Prior
        density = kind.restore(description["settings"], {key.removeprefix("density/"): value for key, value in tensors.items()})
    except (SafetensorError, UsageError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.Damaged(f"{folder(run, name)} was written by another version of pofx") from error
    return description, Fitted(density, **own, name=_label(run, name))


# -------------------------------------------------------------------------------------------------------------- use


def attach(model: Model, run: "Run", wanted: str | None = None) -> list[str]:
    """Has `model` draw its codes from a kept prior of the run's chosen checkpoint, and says what stood in the way.

    Arguments:
        wanted: the name of one; `own` for the model's own; None for the newest sound one of this checkpoint, if any.
    Raises `UsageError` where the one that was asked for is not there, damaged or of another checkpoint.
    """
    if wanted == OWN:
        return []
    if wanted is None:
        fitted, problems = _newest(run)
    else:
        if Decodes not in model.capabilities:
            raise UsageError(f"this {type(model).__name__} has no codes to draw from a prior: leave --prior out")
        fitted, problems = _asked(run, wanted), []
    if fitted is not None:
        model.fitted = fitted  # type: ignore[assignment]
    return problems


def newest(run: "Run") -> str:
    """The name of the prior that `attach` finds by itself; nothing where it finds none."""
    fitted = _newest(run)[0]
    return "" if fitted is None else fitted.name


def in_use(model: Model) -> str:
    """The name of the prior that the model draws its codes from; nothing where that is its own."""
    fitted = getattr(model, "fitted", None)
    return fitted.name if isinstance(fitted, Fitted) else ""


def _again(run: "Run", name: str = "") -> str:
    return f"pofx fit-prior {run.path}@{run.step} --kind KIND{name and f' --name {name}'}"


def _asked(run: "Run", name: str) -> Fitted:
    known = names(run)
    if name not in known:
        kinds = discovery.names("priors")
        raise UsageError(
            f"{run.path} has no prior {name!r}, it has {', '.join((OWN, *known))}: pofx fit-prior {run.path} --kind "
            f"{name if name in kinds else '|'.join(kinds)} fits one"
        )
    try:
        description, fitted = read(run, name)
    except checkpoint.Damaged as error:
        raise UsageError(f"{error}: take --prior {OWN}, or fit it again with {_again(run, name)}") from error
    if description["checkpoint"] != _hash(run):
        step = description["step"]
        raise UsageError(
            f"the prior {name} of {run.path} was fitted to its checkpoint {step}, not to {run.step}: take --prior {OWN}, or fit it again "
            f"with {_again(run, name)}"
        )
    return fitted


def _newest(run: "Run") -> tuple[Fitted | None, list[str]]:
    """The newest sound prior of the chosen checkpoint, and a sentence about each damaged one, or where all are of others."""
    found: list[tuple[int, Fitted]] = []
    problems, others = [], []
    for name in names(run):
        try:
            description, fitted = read(run, name)
        except checkpoint.Damaged as error:
            problems.append(f"{error}, so that no code is drawn from it: fit it again with {_again(run, name)}")
            continue
        if description["checkpoint"] == _hash(run):
            found.append((description["number"], fitted))
        else:
            others.append(name)
    if found:
        return max(found, key=lambda pair: pair[0])[1], problems
    if others:
        problems.append(
            f"codes are drawn from the model's own prior, since {run.path} has fitted ones ({', '.join(others)}) of other checkpoints than "
            f"{run.step} only: {_again(run)} fits one"
        )
    return None, problems
