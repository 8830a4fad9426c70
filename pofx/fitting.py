"""Fits a prior to the codes of a run's training data: encodes them, turns them into principal axes, fits, keeps."""

import dataclasses
import inspect
import math
import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal

from pofx import discovery, examples, priors
from pofx.core import Decodes, Encodes, Model, Samples, UsageError
from pofx.data.dataset import Dataset, Split
from pofx.nn import labels
from pofx.priors import OWN, Fitted
from pofx.progress import Steps
from pofx.run import Run

#: Training codes that a prior is fitted to, and numbers of which they consist, at most; held-out codes that it is measured on.
CODES, ELEMENTS, HELD = 60_000, 1 << 25, 5000
#: Codes below which no density can be fitted.
LEAST = 20
#: One code in so many is left out of the fit and chooses what is to be chosen.
CHOOSES = 10
#: Axes with a smaller share of the variance of the largest are rounding.
NONE = 1e-8


@dataclasses.dataclass(frozen=True)
class Result:
    """A prior as it was fitted and kept, and how likely it makes held-out codes, in nats a code.

    nats: under the prior. gaussian: under one Gaussian of the mean and covariance of training codes. own: under the model's
    own prior; None where that is no density of all numbers of a code, so that they cannot be compared, or rules some codes out.
    codes, part: how many held-out codes, and of which part of the data.
    """

    prior: Fitted
    nats: float
    gaussian: float
    own: float | None
    codes: int
    part: str

    def __str__(self) -> str:
        least = "at least " if self.prior.density.bound else ""
        own = "" if self.own is None else f" and {self.own:.1f} under the model's own prior"
        return (
            f"{self.prior.density.describe()}: log-density of held-out codes {least}{self.nats:.1f} nats, {self.gaussian:.1f} under one "
            f"Gaussian{own} ({self.codes:,} {self.part} codes of {len(self.prior.axes)} dimensions)"
        )


def fit(reference: str | Run, kind: str, *, name: str | None = None, seed: int = 0, quiet: bool = True, **knobs: Any) -> Result:
    """Fits a density to training codes and keeps it in the run, bound to the chosen checkpoint.

    Nine tenths of the codes are fitted, the last tenth chooses (components, neighbours, when to stop), and codes of the
    validation part, which the model was not trained on, measure. A conditional model gives its codes under their labels,
    and one density stands for all of them, since its prior does not depend on the label either.

    Arguments:
        kind: see `pofx list priors`. name: under which it is kept; by default the kind.
        knobs: further arguments of the kind's own `fit`.
    Raises `UsageError` for a model without codes, for codes that are not finite, all equal or too few.
    """
    density: type[priors.Density] = discovery.load("priors", kind).Prior
    takes = [each for each in inspect.signature(density.fit).parameters if each not in ("y", "held", "seed", "steps")]
    if unknown := sorted(set(knobs) - set(takes)):
        has = ", ".join(f"--{each}" for each in takes) or "nothing to choose"
        raise UsageError(f"a prior of kind {kind} has no --{unknown[0]}; it has {has}")
    name = kind if name is None else name
    if not re.fullmatch(r"\w[\w.-]*", name) or name == OWN:
        raise UsageError(f"a prior cannot be called {name!r}: take letters, digits, . _ and -, and not {OWN}, the name of the model's own")
    run = Run.open(reference)
    model = run.model(prior=OWN)
    discovery.require(model, Samples, Encodes, Decodes, what="fit-prior")
    with Steps(3, quiet=quiet) as steps, run.lock():
        steps.step("codes")
        dataset = run.dataset()
        z = _codes(model, dataset.train, run, steps, min(CODES, ELEMENTS // model.prior().event_shape.numel()))  # type: ignore[attr-defined]
        part, held = _held(model, dataset, run, steps)
        if len(z) < LEAST:
            raise UsageError(f"{run.path} has {len(z)} training codes, too few for a density: it takes {LEAST} at least")
        steps.step(kind)
        chooses, fitted = z[: len(z) // CHOOSES], z[len(z) // CHOOSES :]
        mean, axes, variances = _axes(fitted, run)
        scale = variances.mean().sqrt()
        found = density.fit(*(priors.place(part, mean, axes, scale) for part in (fitted, chooses)), seed=seed, steps=steps, **knobs)
        prior = Fitted(found, mean, axes, scale)
        steps.step("held-out codes")
        held = chooses if held is None else held
        gaussian = Normal(0.0, variances.sqrt()).log_prob(scale * priors.place(held, mean, axes, scale)).sum(1)
        before: Distribution = model.prior()  # type: ignore[attr-defined]
        # A probability of single codes, or a density in fewer directions, cannot stand beside densities.
        own = float(before.log_prob(held).mean()) if len(axes) == z.shape[1] and not examples.discrete(before) else -math.inf
        nats = float(prior.log_prob(held).mean())
        if not math.isfinite(nats):
            raise UsageError(f"the {kind} fitted to the codes of {run.path} is not finite on held-out codes: take another --kind")
        result = Result(prior, nats, float(gaussian.mean()), own if math.isfinite(own) else None, len(held), part)
        facts = {
            "seed": seed,
            "codes": len(fitted),
            "nats": result.nats,
            "gaussian": result.gaussian,
            "own": result.own,
            "held": [len(held), part],
        }
        return dataclasses.replace(result, prior=priors.save(run, name, kind, prior, facts))


def _codes(model: Model, split: Split, run: Run, steps: Steps, limit: int) -> Float[Tensor, "n latent"]:
    """Codes of examples in an order of the hash's choosing."""
    positions = split.positions(model.window, shuffle=0)[:limit].split(examples.PART)
    found = []
    for rows in steps.track(positions, len(positions)):
        batch = split.batch(rows, window=model.window)
        z = examples.encode(model, batch)
        label = examples.conditions(model, batch.label)
        # Without its label an example's code says the label as well, which no code does that is decoded under a label.
        found.append(z if label is None else z[labels.known(label)])
    z = torch.cat(found)
    if bad := int((~z.isfinite()).any(1).sum()):
        raise UsageError(
            f"{bad:,} of {len(z):,} codes of {run.path}@{run.step} are not finite: take an earlier checkpoint, or train again with a "
            "lower learning rate"
        )
    return z


def _held(model: Model, dataset: Dataset, run: Run, steps: Steps) -> tuple[str, Tensor | None]:
    """Codes of examples that training did not see; those of the test part only where there is no other."""
    for part in ("validation", "test"):
        split = getattr(dataset, part)
        # A text may be shorter here than one example.
        whole = split is not None and (not split.tokens or len(split) >= (model.window or 1))
        if whole and len(z := _codes(model, split, run, steps, HELD)):
            return part, z
    return "left out training", None


def _axes(z: Float[Tensor, "n latent"], run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of codes, their principal axes as rows, and the variances along these, in float64."""
    x = z.to(torch.float64)
    mean = x.mean(0)
    variances, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    kept = variances > max(NONE * float(variances[-1]), 1e-12 * float(1 + mean.square().mean()))
    if not bool(kept.any()):
        raise UsageError(f"all training codes of {run.path}@{run.step} are equal: the model has collapsed, so train it again")
    return mean, axes[:, kept].T.contiguous(), variances[kept]
