"""Asking a model about examples: which ones are held out, draws in parts, codes, reconstructions."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Set
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from pofx.core import Batch, Completes, Decodes, Denoises, Encodes, Model, Noise, Samples, UsageError
from pofx.data.dataset import Dataset, Split

#: Examples that a model is asked about at once.
PART = 64
#: Codes of a prior whose moments have no closed form.
DRAWS = 1024


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


def some(split: Split, n: int, *, window: int | None = None, seed: int = 0) -> Batch:
    """n examples (as many as there are) of a part in an order drawn by the seed, since files are often sorted."""
    return split.batch(split.positions(window, shuffle=seed)[:n], window=window)


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


def corrupt(model: Model, x: Tensor, *, seed: int = 0) -> Float[Tensor, "batch ..."]:
    """x under the noise that the model was trained to remove, on the CPU, a function of the seed."""
    with asking(model):
        return cast(Denoises, model).corrupt(x.to(model.device), noise=Noise(seed, len(x), device=model.device)).cpu()


def denoise(model: Model, x: Tensor) -> Float[Tensor, "batch ..."]:
    """What the model takes for the clean examples behind noisy ones, on the CPU, some at a time."""
    with asking(model):
        return torch.cat([cast(Denoises, model).denoise(part.to(model.device)).cpu() for part in x.split(PART)])


def complete(
    model: Model,
    x: Shaped[Tensor, "n ..."],
    keep: Bool[Tensor, "..."],
    *,
    each: int = 1,
    seed: int = 0,
    label: Tensor | None = None,
    **knobs: Any,
) -> Shaped[Tensor, "n each ..."]:
    """x with what is not in `keep` drawn anew, several times, on the CPU; in parts that equal the whole.

    Arguments:
        keep: of the shape of one example.
        label: (n x each,) labels of a conditional model, the completions of an example one after the other.
        knobs: further arguments of the model's own `complete`.
    Raises `UsageError` for one that it does not have.
    """
    known = inspect.signature(cast(Completes, model).complete).parameters
    given = knobs | ({} if label is None else {"label": label})
    for name in given:
        if name not in known:
            raise UsageError(f"completing with this {type(model).__name__} has no --{name.replace('_', '-')}: leave it out")
    whole, filled = x.repeat_interleave(each, 0), []
    with asking(model):
        for start in range(0, len(whole), PART):
            part = whole[start : start + PART].to(model.device)
            noise = Noise(seed, len(part), first=start, device=model.device)
            of = {} if label is None else {"label": label[start : start + PART].to(model.device)}
            mask = keep.to(model.device).expand(part.shape)
            filled.append(cast(Completes, model).complete(part, mask, noise=noise, **of, **knobs).cpu())
    return torch.cat(filled).unflatten(0, (len(x), each))


def discrete(prior: torch.distributions.Distribution) -> bool:
    """Whether a prior gives probabilities to single codes and no density."""
    try:
        return prior.support is not None and bool(prior.support.is_discrete)
    except NotImplementedError:  # a distribution need not say where it lives
        return False


def prior_codes(model: Model, n: int, seed: int) -> Float[Tensor, "n latent"]:
    """n codes of the model's prior, on the CPU, a function of the seed."""
    with torch.random.fork_rng(devices=[]), asking(model):
        torch.manual_seed(seed)
        return cast(Decodes, model).prior().sample((n,)).cpu()


def prior_scale(model: Model) -> tuple[Float[Tensor, " latent"], Float[Tensor, " latent"]]:
    """Mean and standard deviation of each unit under the model's prior, on the CPU; where they have no closed form, of draws."""
    with asking(model):
        prior = cast(Decodes, model).prior()
        try:
            return prior.mean.flatten().cpu(), prior.stddev.flatten().cpu()
        except NotImplementedError:
            codes = prior_codes(model, DRAWS, seed=0).flatten(1)
            return codes.mean(0), codes.std(0)


def standard_scores(
    z: Float[Tensor, "n latent"], mean: Float[Tensor, " latent"], scale: Float[Tensor, " latent"]
) -> Float[Tensor, "n latent"]:
    """(z - mean) / scale; 0 for a unit that never varies."""
    return torch.where(scale > 0, (z - mean) / scale.clamp(min=1e-12), 0)


def gaussian(model: Model, axes: Float[Tensor, "axes latent"]) -> tuple[Float[Tensor, " axes"], Float[Tensor, "axes axes"]] | None:
    """Mean and covariance of the model's prior along orthonormal axes, on the CPU; None where it is no Gaussian."""
    with asking(model):
        prior = cast(Decodes, model).prior()
        if isinstance(prior, MultivariateNormal):
            return axes @ prior.mean.cpu(), axes @ prior.covariance_matrix.cpu() @ axes.T
        if isinstance(prior, Independent) and isinstance(prior.base_dist, Normal):
            return axes @ prior.mean.flatten().cpu(), axes * prior.variance.flatten().cpu() @ axes.T
    return None


def prior_moments(model: Model, axes: Float[Tensor, "axes latent"]) -> tuple[Float[Tensor, " axes"], Float[Tensor, "axes axes"]]:
    """Mean and covariance of the model's prior along orthonormal axes, on the CPU; exact for a Gaussian, else of draws."""
    if (exact := gaussian(model, axes)) is not None:
        return exact
    along = prior_codes(model, DRAWS, seed=0).flatten(1) @ axes.T
    return along.mean(0), along.T.cov().view(len(axes), len(axes))


def knobs_of(model: Model) -> Set[str]:
    """The names of what a model's own `sample` can be asked for."""
    return inspect.signature(cast(Samples, model).sample).parameters.keys()


def draw(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    label: Tensor | None = None,
    watch: Callable[[Tensor], None] | None = None,
    **knobs: Any,
) -> Shaped[Tensor, "n ..."]:
    """n new examples on the CPU, drawn in parts that equal the whole.

    Arguments:
        first: number of the first one in the whole sample that these are a part of.
        label: (n,) classes of a conditional model.
        watch: is told the new tokens of the first part's texts as they come, where the model's own `sample` has it.
        knobs: further arguments of the model's own `sample`.
    """
    if knobs.get("temperature", 0.0) < 0:
        raise UsageError(f"temperature must be at least 0, not {knobs['temperature']:g}")
    drawn = []
    with asking(model):
        for start in range(0, n, PART):
            if watch is not None:
                knobs["watch"] = watch if start == 0 else None
            count = min(PART, n - start)
            noise = Noise(seed, count, first=first + start, device=model.device)
            of = None if label is None else label[start : start + count].to(model.device)
            drawn.append(cast(Samples, model).sample(count, noise=noise, label=of, **knobs).cpu())
    return torch.cat(drawn)
