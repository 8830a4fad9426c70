"""Goes on where a series ends: pofx forecast RUN --horizon 48."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pofx.cli import Reading

if TYPE_CHECKING:
    import numpy as np

#: The quantiles that are written, each in a column of its own.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Goes on where a series, or each of several sequences, ends."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """--data: what to go on from. By default the run's own data."""
    data: Reading = dataclasses.field(default_factory=Reading)
    horizon: int | None = None
    """Steps ahead; by default a quarter of the run's window."""
    n: int = 500
    """Futures that are drawn, of which quantiles are taken."""
    seed: int = 0
    """Equal seeds give equal forecasts."""
    out: str | None = None
    """.csv: a line for each step, with the quantiles 5, 25, 50, 75 and 95 % of each feature; .npz: every future that was drawn, `x` of
    (draws, sequences, horizon, features). By default a .csv in RUN/samples."""


def run(options: Options) -> None:
    """Draws and writes."""
    import pathlib

    from pofx import asked, discovery, forecasting
    from pofx.core import Forecasts, UsageError
    from pofx.data import everything
    from pofx.data.files import whole
    from pofx.data.vectors import write_csv

    found = asked.opened(options.run)
    model = found.model()
    if model.spec.kind != "sequences":
        raise UsageError(
            f"pofx forecast goes on from series, and {options.run} models {model.spec.kind}: pofx sample --prompt continues texts"
        )
    discovery.require(model, Forecasts, what="forecast")
    if options.n < 2:
        raise UsageError(f"--n must be at least 2, not {options.n}")
    if options.horizon is not None and options.horizon < 1:
        raise UsageError(f"--horizon must be at least 1, not {options.horizon}")
    path = found.path / "samples" / f"{found.step}-forecast-seed{options.seed}.csv" if options.out is None else pathlib.Path(options.out)
    if path.suffix not in (".csv", ".npz"):
        raise UsageError(f"forecasts are written to .csv and .npz, not to {path.name}")
    dataset = asked.data(found, options.source, options.data.on_error)[0]
    horizon = options.horizon or forecasting.horizon_of(model.spec.shape[0])
    split = everything(dataset)
    # The last window of a series ends where the series does.
    one = dataset.train.stride is not None
    x = split.batch(split.positions()[-1:] if one else split.positions()).x
    drawn = forecasting.futures(model, x, horizon, draws=options.n, seed=options.seed)
    names, values = forecasting.in_units(dataset.codec, drawn)
    if path.suffix == ".npz":
        import numpy as np

        with whole(path) as temporary:
            np.savez_compressed(temporary, x=values, names=np.array(names))
    else:
        when: list[tuple[str, Any]] = [] if one else [("sequence", _repeated(len(x), horizon))]
        when.append(("step", _ahead(len(x), horizon)))
        if dataset.times is not None and one:
            when.append((getattr(dataset.codec, "time", None) or "time", forecasting.later(dataset.times, horizon)))
        write_csv(path, when + _quantiles(names, values))
    print(path)


def _repeated(n: int, horizon: int) -> "np.ndarray":
    import numpy as np

    return np.repeat(np.arange(n), horizon)


def _ahead(n: int, horizon: int) -> "np.ndarray":
    import numpy as np

    return np.tile(np.arange(1, horizon + 1), n)


def _quantiles(names: tuple[str, ...], values: "np.ndarray") -> "list[tuple[str, Any]]":
    """A column for each feature and quantile."""
    import numpy as np

    found = np.quantile(values, QUANTILES, axis=0, method="weibull")
    return [
        (f"{name} {quantile:.0%}", found[q, ..., feature].reshape(-1))
        for feature, name in enumerate(names)
        for q, quantile in enumerate(QUANTILES)
    ]
