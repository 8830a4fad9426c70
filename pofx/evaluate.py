"""How good is a trained model? Numbers by capability on held-out data, each beside a trivial baseline."""

import dataclasses
import json
import math
import sys
import types
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from pofx import baselines, data, examples
from pofx.core import Decodes, Encodes, Model, Samples, Scores, UsageError
from pofx.data.dataset import Dataset
from pofx.metrics.frechet_distance import frechet_distance
from pofx.metrics.kernel_mmd import kernel_mmd
from pofx.metrics.mode_coverage import mode_coverage

if TYPE_CHECKING:
    import pathlib

    from pofx.run import Run

#: Examples that a bound is estimated on, and samples that are drawn, without `full`.
SOME = 1000
#: Samples that are drawn with `full`.
MANY = 10_000
#: Grey levels in use at which a table of frequencies has an advantage that a reader must know of.
FEW_LEVELS = 64
#: Principal components in which samples are compared.
COMPONENTS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a model beside the same number of trivial baselines.

    unit: of all three. error: standard error of `model`, None where it is not known. n: examples behind it.
    floor: the number of real data against real data, where that is not 0. note: what else must be known to read it.
    """

    name: str
    unit: str
    model: float
    error: float | None
    baselines: dict[str, float]
    n: int
    better: str = "lower"
    floor: float | None = None
    note: str = ""

    @property
    def value(self) -> str:
        """The model's number with its standard error."""
        return number(self.model) + (f" ± {self.error:.2g}" if self.error is not None else "")

    @property
    def remark(self) -> str:
        """What must be known to read the row."""
        floor = f"real against real: {number(self.floor)}" if self.floor is not None else ""
        return "; ".join(filter(None, (f"{self.better} is better", self.note, floor)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What `evaluate` found.

    model: its name. data: source; part: of it. fingerprint: of the data. step: of the checkpoint, in moves.
    """

    model: str
    data: str
    part: str
    fingerprint: str
    step: int | None
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return dataclasses.asdict(self) | {"rows": [dataclasses.asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Report":
        """The report that `to_json` wrote."""
        return cls(**{**values, "rows": tuple(Row(**row) for row in values["rows"])})

    def __rich__(self) -> Table:
        table = Table(title=f"{self.model} on {self.data} ({self.part})", title_justify="left")
        table.add_column("measure")
        for name in ("model", "baseline", "n"):
            table.add_column(name, justify="right")
        table.add_column("note", overflow="fold")
        for row in self.rows:
            trivial = "\n".join(f"{number(v)} {name}" for name, v in row.baselines.items())
            table.add_row(f"{row.name}\n{row.unit}", row.value, trivial, f"{row.n:,}", row.remark)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def evaluate(run_or_model: "Run | Model | str | pathlib.Path", data: Dataset | str | None = None, *, full: bool = False) -> Report:
    """What the model's capabilities allow to measure on the test part (else the validation part).

    Likelihoods in nats; errors of reconstructions; the distance of samples from held-out data, where there is no
    likelihood, where samples are vectors, and with `full`.

    Arguments:
        run_or_model: a run, its folder, or a model (which then needs `data`).
        data: a data set or source; by default the run's own. Baselines are fitted to the training part of the run's own.
        full: bounds over the whole part, and 10,000 samples instead of 1,000.
    Raises `UsageError` for data that nothing was held out of.
    """
    if isinstance(run_or_model, Model):
        model, run, step, name = run_or_model, None, None, type(run_or_model).__name__
    else:
        from pofx.run import Run

        run = Run.open(run_or_model)
        model, step, name = run.model(), run.step, run.info["model"]
    dataset, train = _datasets(run, data)
    part, held = examples.held_out(dataset)
    if part == "train":
        raise UsageError(f"{dataset.source} has neither a test nor a validation part: give data with one, or --data.validation 0.1")
    measured = _Measured(model, train, dataset, held, full)
    rows: list[Row] = []
    with examples.asking(model):
        if Scores in model.capabilities:
            rows += measured.likelihood()
        if {Encodes, Decodes} <= model.capabilities and model.spec.kind != "tokens":
            rows += measured.reconstruction()
        comparable = Samples in model.capabilities and model.spec.kind != "tokens"
        if comparable and (full or Scores not in model.capabilities or model.spec.kind == "vectors"):
            rows += measured.samples()
    if not rows:
        raise UsageError(f"this {type(model).__name__} can be measured by nothing here: it needs Scores, Encodes and Decodes, or Samples")
    return Report(model=name, data=dataset.source, part=part, fingerprint=dataset.fingerprint, step=step, rows=tuple(rows))


def _datasets(run: "Run | None", source: Dataset | str | None) -> tuple[Dataset, Dataset]:
    """The data to measure on, and those whose training part the baselines learn from."""
    if isinstance(source, Dataset):
        return source, source if run is None else run.dataset()
    if run is not None:
        own = run.dataset()
        return (own if source is None else run.dataset(source)), own
    if source is None:
        raise UsageError("a model alone does not know its data: give evaluate a data set as well")
    dataset = data.load(source)
    return dataset, dataset


def _mean(values: Tensor) -> tuple[float, float | None]:
    """Mean and its standard error, over examples."""
    values = values.to(torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None


@dataclasses.dataclass
class _Measured:
    """What all measures of one evaluation share."""

    model: Model
    train: Dataset
    dataset: Dataset
    held: data.Split
    full: bool

    def _batches(self, limit: int | None = None) -> Any:
        return self.held.batches(examples.PART, window=self.model.window, device=self.model.device, limit=limit)

    # ---------------------------------------------------------------------------------------------- likelihood

    def likelihood(self) -> list[Row]:
        """Negative log-likelihood of held-out examples."""
        model = cast(Scores, self.model)
        kind, space, samples = self._space()
        limit = None if self.full or kind == "exact" else SOME
        trivial = baselines.fit(space, self.model.spec, self.train.train)
        nats: list[Tensor] = []
        lengths: list[Tensor] = []
        theirs: dict[str, list[Tensor]] = {name: [] for name in trivial}
        for batch in self._batches(limit):
            # Without labels: log p(x), which the baselines give too.
            nats.append(-model.log_prob(batch.x).nats.cpu().to(torch.float64))
            lengths.append(torch.full((len(batch.x),), math.prod(batch.x.shape[1:]), dtype=torch.float64))
            for name, score in trivial.items():
                theirs[name].append(-score(batch.x))
        mine, length = torch.cat(nats), torch.cat(lengths)
        others = {name: torch.cat(parts) for name, parts in theirs.items()}
        if space == "density":
            # Into the source's units.
            shift = self.train.codec.log_jacobian()
            mine, others = mine - shift, {name: values - shift for name, values in others.items()}
        how = "exact" if kind == "exact" else f"upper bound, {samples} importance samples"
        note = f"{how}; {space}{', in units of the source' if space == 'density' else ''}"
        if space == "8-bit" and (used := len(self.train.train.x[:MANY].unique())) <= FEW_LEVELS:
            note += f"; only {used} of the 256 grey levels occur: a histogram spends nothing on the others, a smooth likelihood must"
        value, error = _mean(mine)
        row = Row(
            name="negative log-likelihood",
            unit="nats per window" if space == "tokens" else "nats per example",
            model=value,
            error=error,
            baselines={name: float(values.mean()) for name, values in others.items()},
            n=len(mine),
            note=note,
        )
        if space not in ("tokens", "8-bit"):
            return [row]
        unit = 1.0 if space == "tokens" else math.log(2)
        total = float(length.sum()) * unit
        # A ratio of sums: windows differ in length.
        ratio = float(mine.sum()) / total
        residual = mine - ratio * unit * length
        spread = float(residual.std()) * math.sqrt(len(mine)) / total if len(mine) > 1 else None
        per = dataclasses.replace(
            row,
            unit="nats per token" if space == "tokens" else "bits per dimension",
            model=ratio,
            error=spread,
            baselines={name: float(values.sum()) / total for name, values in others.items()},
            n=int(length.sum()) if space == "tokens" else len(mine),
        )
        return [per, row]

    def _space(self) -> tuple[str, str, int | None]:
        batch = examples.first(self.held, 1, self.model.window)
        found = cast(Scores, self.model).log_prob(batch.x.to(self.model.device))
        return found.kind, found.space, found.samples

    # -------------------------------------------------------------------------------------------- reconstruction

    def reconstruction(self) -> list[Row]:
        """Squared error of decode(encode(x)), and of the mean training example."""
        train = self.train.train
        total = torch.zeros(math.prod(self.model.spec.shape), dtype=torch.float64)
        for batch in train.batches(baselines.ROWS):
            total += batch.x.flatten(1).to(torch.float64).sum(0)
        mean = (total / len(train)).to(torch.float32)
        mine, theirs = [], []
        for batch in self._batches():
            x = batch.x.cpu().flatten(1)
            mine.append((examples.reconstruct(self.model, batch).flatten(1) - x).square().mean(1))
            theirs.append((mean - x).square().mean(1))
        errors, trivial = torch.cat(mine), torch.cat(theirs)
        value, error = _mean(errors)
        baseline = float(trivial.to(torch.float64).mean())
        where = "standardised" if self.model.spec.kind != "images" else "pixels in [0, 1]"
        name, trivially = "squared error of reconstructions", "mean training example"
        share = f"; {value / baseline:.1%} of the baseline's" if baseline > 0 else ""
        rows = [
            Row(name=name, unit="per element", model=value, error=error, baselines={trivially: baseline}, n=len(errors), note=where + share)
        ]
        if self.model.spec.kind == "images":
            # Peak 1; an error of less than a tenth of a grey level does not make the mean infinite.
            decibel, theirs_decibel = (-10 * values.clamp(min=1e-8).log10() for values in (errors, trivial))
            value, error = _mean(decibel)
            floor = {trivially: float(theirs_decibel.mean())}
            rows.append(
                Row(name="PSNR of reconstructions", unit="dB", model=value, error=error, baselines=floor, n=len(errors), better="higher")
            )
        return rows

    # --------------------------------------------------------------------------------------------------- samples

    def samples(self) -> list[Row]:
        """Distances of new examples from held-out ones in principal components of the standardised training part."""
        from sklearn.decomposition import PCA

        n = min(MANY if self.full else SOME, len(self.held), len(self.train.train))
        if n < 2:
            return []
        drawn = examples.draw(self.model, n)
        real = next(self.train.train.batches(MANY, limit=MANY)).x.flatten(1).numpy().astype(np.float64)
        mean, scale = real.mean(0), real.std(0)
        # Features that never change in training would weigh without bound.
        scale = np.where(scale > 1e-3, scale, 1.0)
        pca = PCA(n_components=min(COMPONENTS, real.shape[1], len(real) - 1), random_state=0).fit((real - mean) / scale)

        def features(x: Tensor | np.ndarray) -> np.ndarray:
            return pca.transform((np.asarray(x, dtype=np.float64).reshape(len(x), -1) - mean) / scale)

        # Examples are taken in an order of the hash's choosing: files are often sorted.
        held = features(self.held.batch(self.held.positions(shuffle=0)[:n]).x)
        own = features(self.train.train.batch(self.train.train.positions(shuffle=0)[:n]).x)
        fake, all_of_train = features(drawn), features(real)
        trivial = np.random.default_rng(0).multivariate_normal(
            all_of_train.mean(0), np.cov(all_of_train.T).reshape(2 * (held.shape[1],)), n
        )
        rows = []
        for name, measure in (("kernel MMD² of samples", kernel_mmd), ("Fréchet distance of samples", frechet_distance)):
            note = f"{held.shape[1]} principal components"
            if measure is frechet_distance:
                note += ", which sees means and covariances alone"
            row = Row(
                name=name,
                unit="unbiased" if measure is kernel_mmd else "squared standard deviations",
                model=measure(held, fake),
                error=None,
                baselines={"gaussian": measure(held, trivial)},
                n=n,
                floor=measure(held, own),
                note=note,
            )
            rows.append(row)
        return rows + self._modes(drawn, trivial=mean + scale * pca.inverse_transform(trivial))

    def _modes(self, drawn: Tensor, trivial: np.ndarray) -> list[Row]:
        """For the mixtures whose modes are known."""
        from pofx.data import toys

        try:
            centres = toys.modes(self.train.source)
        except UsageError:
            return []
        codec = self.train.codec
        mine = mode_coverage(np.asarray(codec.show(drawn)), centres, toys.SIGMA)
        theirs = mode_coverage(np.asarray(codec.show(torch.from_numpy(trivial))), centres, toys.SIGMA)
        n = len(drawn)
        return [
            Row(
                name="modes found",
                unit=f"of {len(centres)}",
                model=mine.found,
                error=None,
                baselines={"gaussian": theirs.found},
                n=n,
                better="higher",
            ),
            Row(
                name="samples within 3 sigma of a mode",
                unit="share",
                model=mine.near,
                error=math.sqrt(mine.near * (1 - mine.near) / n),
                baselines={"gaussian": theirs.near},
                n=n,
                better="higher",
                note="98.9 % for the truth",
            ),
        ]


def save(report: Report, path: "pathlib.Path") -> None:
    """Writes the report as JSON, whole or not at all."""
    from pofx.data.files import whole

    with whole(path) as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class _Callable(types.ModuleType):
    """Importing this module puts it in the place of the function `pofx.evaluate`, so it answers calls as the function."""

    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Callable
