"""Do a model's forecasts beat the naive and the linear one, and do its intervals hold what they promise?

    python benchmarks/series.py [--model rnn] [--data oscillator] [--minutes 2] [--seeds 3]

Trains the model on a series by its recipe, for as many minutes, and forecasts the last quarter of windows of the test part, whose
futures do not overlap, from the three quarters before. Prints for each seed the negative log-likelihood of the test windows (with
the empty state at each start), the CRPS of the forecasts beside those of both baselines, at once, half way and at the end, and the
share of values inside of the 50 % and 90 % intervals. Writes benchmarks/results/series.json. Ctrl-C loses nothing: a finished
training is not done again.
"""

import argparse
import datetime
import json
import pathlib
import sys
from typing import Any, cast

import numpy as np
import torch
from idle import described, flags, idle_rounds, trained

import pofx
from pofx import data, examples, forecasting
from pofx.api import stem
from pofx.core import Model, Scores
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "series.json"
#: Intervals, and how far the share inside of them may be from what they promise.
SHARES, OFF = (0.5, 0.9), 0.07


def windows(dataset: data.Dataset) -> torch.Tensor:
    """Windows of the test part whose last quarters, the futures, stand one behind the other."""
    everything = data.everything(dataset)
    window = dataset.spec.shape[0]
    steps = len(everything) + window - 1
    positions = torch.arange(steps - steps // 10, len(everything), forecasting.horizon_of(window))
    return everything.batch(positions).x


def measured(model: Model, dataset: data.Dataset, draws: int) -> dict[str, Any]:
    """The numbers of one seed; those of the forecasts in standard deviations of the data, those of the likelihood in nats."""
    x = windows(dataset)
    horizon = forecasting.horizon_of(x.shape[1])
    past, future = x[:, :-horizon].numpy().astype(np.float64), x[:, -horizon:].numpy().astype(np.float64)
    drawn = forecasting.futures(model, x[:, :-horizon], horizon, draws=draws)
    score = {"model": forecasting.crps(drawn, future)}
    score |= {name: each.crps(past, future) for name, each in forecasting.baselines(dataset.train, horizon).items()}
    with examples.asking(model):
        nats = -cast(Scores, model).log_prob(x).nats.double()
    inside = {}
    for share in SHARES:
        low, high = forecasting.interval(drawn, share)
        inside[f"{share:.0%}"] = float(((low <= future) & (future <= high)).mean())
    return {
        "windows": len(x),
        "horizon": horizon,
        "nats": float(nats.mean()) - dataset.codec.log_jacobian(),
        "crps": {name: float(values.mean()) for name, values in score.items()},
        "crps_by_step": {name: values.mean((0, 2)).tolist() for name, values in score.items()},
        "inside": inside,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="rnn")
    parser.add_argument("--data", default="oscillator", help="a built-in series")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500, help="futures that are drawn of each window")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/series"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser)
    options = parser.parse_args()
    dataset = data.load(options.data)
    everything = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    key = f"{options.model} on {options.data}"
    last = everything.get(key, {})
    known = last.get("rounds") if last.get("minutes") == options.minutes else None

    rows: list[dict[str, Any]] = []
    print(f"{'seed':>4s} {'rounds':>7s} {'nats':>8s}  {'CRPS':24s} {'at once, half way, at the end':30s} {'inside 50 %':>11s} {'90 %':>6s}")
    for seed in range(options.seeds):
        path = options.folder / f"{options.model}-{stem(options.data)}-{options.minutes:g}min-{seed}"
        run = trained(options.model, dataset, path, seed, options.minutes, known, any_speed=options.any_speed)
        row = {"seed": seed, **described(run), **measured(pofx.load(run.path), dataset, options.draws)}
        rows.append(row)
        for name, score in row["crps"].items():
            steps = row["crps_by_step"][name]
            line = f"{name:8s} {score:.4f}         {steps[0]:.3f} {steps[len(steps) // 2]:.3f} {steps[-1]:.3f}"
            own = name == "model"
            print(
                (f"{seed:4d} {row['rounds']:7,d} {row['nats']:8.1f}  " if own else " " * 23)
                + f"{line:55s}"
                + (f" {row['inside']['50%']:10.1%} {row['inside']['90%']:6.1%}" if own else ""),
                flush=True,
            )
    better = all(row["crps"]["model"] < min(value for name, value in row["crps"].items() if name != "model") for row in rows)
    hold = all(abs(row["inside"][f"{share:.0%}"] - share) <= OFF for row in rows for share in SHARES)
    print(
        f"a lower CRPS than both baselines: {'as it must be' if better else 'NOT as it must be'}; intervals that hold their share to "
        f"{OFF:.0%}: {'as it must be' if hold else 'NOT as it must be'}, in {options.seeds} seeds"
    )
    everything[key] = {
        "minutes": options.minutes,
        "draws": options.draws,
        # What a busy machine trains for: of the last runs by the clock of an idle one.
        "rounds": known if options.any_speed else idle_rounds(rows) or known,
        "held": better and hold,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "seeds": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    return int(not (better and hold))


if __name__ == "__main__":
    sys.exit(main())
