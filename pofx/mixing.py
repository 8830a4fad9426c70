"""Makes one model of several trained models of the same text, with n-grams that are counted here; its run is a hybrid."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pofx import api, checkpoint, discovery, examples
from pofx.clock import Clock
from pofx.core import Model, Predicts, UsageError
from pofx.data.dataset import Dataset, Split
from pofx.run import Run, next_folder
from pofx.settings import Settings

#: Log-probabilities that are held at once, at most, and windows that are read at once.
ELEMENTS, ROWS = 1 << 27, 16
#: Tokens without which a choice of exponents would be one of chance.
LEAST = 500
#: Symbols up to which tokens are characters or bytes, and the orders of n-grams that are counted of these, and of larger pieces.
LETTERS, ORDERS, FEW = 512, (3, 6, 9), (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A run that was made. alone: nats per token of each part by its name, and of the whole, on the tokens that chose the exponents."""

    run: Run
    alone: dict[str, float]
    together: float
    tokens: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {nats:.4f}" for name, nats in self.alone.items())
        return (
            f"hybrid: {self.together:.4f} nats per token; alone {parts}; all on the {self.tokens:,} tokens of the validation part by which "
            "the exponents were chosen (`pofx evaluate` measures on others)"
        )


def mix(references: Sequence[str | Run], *, orders: Sequence[int] | None = None, out: str | pathlib.Path | None = None) -> Mixed:
    """Multiplies what runs, and n-grams of some orders, expect of the next token, and chooses how on the validation part, which the
    n-grams learn as well once that is done.

    Arguments:
        references: runs of models that predict tokens, trained on the same text with the same validation part.
        orders: of n-grams to count; by default 3, 6 and 9 of characters and bytes, 1, 2 and 4 of larger pieces; none: the runs alone.
        out: folder of the new run; by default runs/hybrid-DATA-NNN.
    Raises `UsageError` for runs of different data, for models that predict no tokens, and without a validation part to choose on.
    """
    start = time.monotonic()
    runs = [Run.open(reference) for reference in references]
    models = [run.model() for run in runs]
    for model in models:
        discovery.require(model, Predicts, what="mix")
    first, dataset = runs[0], runs[0].dataset()
    for run in runs[1:]:
        if run.info["data"]["fingerprint"] != first.info["data"]["fingerprint"]:
            raise UsageError(f"{run.path} was trained on other data than {first.path}, or divided otherwise: mix runs of one text")
    held = dataset.validation
    if held is None or len(held) < LEAST:
        raise UsageError(f"the validation part has {len(held or ()):,} tokens, too few to choose by: train with --data.validation 0.1")
    window = min(model.window or len(held) for model in models)
    if orders is None:
        orders = ORDERS if dataset.spec.vocabulary <= LETTERS else FEW
    names = [f"{run.info['model']} ({run.path})" for run in runs] + [f"n-gram of order {order}" for order in orders]
    kinds = [run.info["model"] for run in runs] + ["ngram"] * len(orders)
    models += [_count(order, window, dataset) for order in orders]
    if len(models) < 2:
        raise UsageError("one model alone cannot be mixed: give another run, or --orders 6")
    parts = tuple(json.dumps({"model": kind, "config": m.config.to_json()}, sort_keys=True) for kind, m in zip(kinds, models, strict=True))
    cls = discovery.model("mixture")
    whole = cls(dataset.spec, cls.Config(parts=parts)).eval()
    for i, model in enumerate(models):
        checkpoint.restore(whole.parts[i], model.state_dict(), resizable=model.resizable)  # type: ignore[index]
    log_p, x = _expected(whole, held, window)
    together = whole.choose(log_p, x)  # type: ignore[operator]
    # It has told what it was held back for, and stands next to the text that is to come.
    for part in whole.parts[len(runs) :]:  # type: ignore[index]
        part.fit(held.batches(ROWS, window=window))
    alone = -log_p.gather(1, x[:, None, None].expand(-1, 1, len(models)))[:, 0].mean(0)
    run = _save(whole, dataset, runs, names, out, time.monotonic() - start)
    return Mixed(run, dict(zip(names, alone.tolist(), strict=True)), together, len(x))


def _count(order: int, window: int, dataset: Dataset) -> Model:
    """An n-gram of the training part."""
    cls = discovery.model("ngram")
    model = cls(dataset.spec, cls.Config(order=order, window=window))
    size = cls.recipe(dataset.spec, None).batch_size
    model.fit(dataset.train.batches(size, window=window))
    return model


def _expected(whole: Model, held: Split, window: int) -> tuple[Float[Tensor, "n vocabulary parts"], Int64[Tensor, " n"]]:
    """What each part expects of the held-out tokens, and these."""
    most = max(1, ELEMENTS // (whole.spec.vocabulary * len(whole.parts) * window))  # type: ignore[arg-type]
    log_p, x = [], []
    with examples.asking(whole):
        for batch in held.batches(ROWS, window=window, limit=most):
            log_p.append(whole.log_p(batch.x).flatten(0, 1))  # type: ignore[operator]
            x.append(batch.x.flatten())
    return torch.cat(log_p), torch.cat(x)


def _save(whole: Model, dataset: Dataset, runs: list[Run], names: list[str], out: str | pathlib.Path | None, seconds: float) -> Run:
    """Writes the run folder."""
    path = pathlib.Path(out) if out is not None else next_folder(pathlib.Path("runs"), f"hybrid-{api.stem(dataset.source)}")
    settings = Settings.from_json(runs[0].info["training"])
    run = api.create(path, "mixture", whole, dataset, settings)
    step = max(run.step or 0 for run in runs)
    with run.lock():
        checkpoint.save(
            run.checkpoints,
            step,
            description={
                "model": "mixture",
                "config": whole.config.to_json(),
                "custom": {},
                "spec": dataset.spec.to_json(),
                "codec": dataset.codec.to_json(),
                # More than there are batches: there is nothing to go on with.
                "clock": dataclasses.asdict(Clock(step=step, round=len(dataset.train), moves={"fit": len(dataset.train)})),
                "rounds": len(dataset.train),
                "training": settings.to_json(),
            },
            weights=whole.state_dict(),
            average=whole.state_dict(),
            training={},
        )
        seconds += sum(run.info.get("seconds", 0.0) for run in runs)
        exact = all(r.info["exact"] for r in runs)
        run.update(status="finished", last=step, hybrid=True, parts=names, seconds=round(seconds, 3), exact=exact)
    return Run.open(run.path)
