"""Nats per character of tiny-shakespeare at a stated time, beside an n-gram model.

    python benchmarks/text.py [SYSTEM ...] [--seed 0] [--data tiny_shakespeare]

Trains each system for its minutes and scores the last tenth of the text, which no training and no choice has seen, in windows of
256 characters that do not overlap, with no context at the start of each. Beside each stands the n-gram model on the same windows.
Prints a table, with samples at three temperatures, and writes benchmarks/results/text.json, system by system. Ctrl-C loses
nothing: a training goes on where it was stopped, a finished one is not done again.
"""

import argparse
import dataclasses
import datetime
import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, cast

import torch
from idle import described, idle_rounds, trained

import pofx
from pofx import data, discovery, examples
from pofx.core import Model, Scores
from pofx.data.dataset import Dataset
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "text.json"
WINDOW, ROWS = 256, 64
TEMPERATURES = (0.5, 0.8, 1.0)
#: The order of the n-gram model beside the others.
ORDER = 6


@dataclasses.dataclass(frozen=True)
class System:
    """model, config: what is trained, beside its recipe. minutes: for how long; None: one pass, however long that takes.
    target: what it must reach; None: it is only reported."""

    model: str
    config: Mapping[str, Any]
    minutes: float | None
    target: float | None


SYSTEMS = {
    "ngram": System("ngram", {"order": ORDER}, None, None),
    "gpt": System("gpt", {}, 10, 1.46),
    "rnn": System("rnn", {}, 10, None),
    "gpt, an hour": System("gpt", {}, 60, 1.45),
}


def scores(model: Model, dataset: Dataset) -> torch.Tensor:
    """-log p of each window of the test part, in nats; and the last, shorter one."""
    assert dataset.test is not None
    with examples.asking(model):
        return torch.cat([-cast(Scores, model).log_prob(batch.x).nats.double() for batch in dataset.test.batches(ROWS, window=WINDOW)])


def measured(model: Model, dataset: Dataset) -> dict[str, Any]:
    """Nats and bits per character, with the standard error over windows."""
    assert dataset.test is not None
    nats = scores(model, dataset)
    whole = nats[: len(dataset.test) // WINDOW] / WINDOW
    value = float(nats.sum()) / len(dataset.test)
    error = float(whole.std() / math.sqrt(len(whole)))
    return {"value": value, "bits": value / math.log(2), "error": error, "n": len(dataset.test)}


def samples(model: Model, dataset: Dataset) -> dict[str, str]:
    """A text at each temperature."""
    return {f"{t:g}": str(dataset.codec.show(examples.draw(model, 1, length=400, temperature=t))[0]) for t in TEMPERATURES}


def main() -> int:
    known = [name for name, system in SYSTEMS.items() if system.model in discovery.names("models")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", default=known, metavar="SYSTEM", help=", ".join(known))
    parser.add_argument("--data", default="tiny_shakespeare")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="instead of each system's own: a trial, which is not written down")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/text"))
    parser.add_argument("--any-speed", action="store_true", help="go by the clock of a busy machine")
    options = parser.parse_args()
    for name in options.systems:
        if name not in known:
            parser.error(f"there is no system {name!r}: {', '.join(known)}")
    dataset = data.load(options.data)
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    missed = 0
    for name in options.systems:
        system, before = SYSTEMS[name], results.get(name, {})
        minutes = options.minutes or system.minutes
        trial = options.minutes is not None
        path = options.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{options.seed}{f'-{minutes:g}min' if trial else ''}"
        if system.minutes is None:
            run = pofx.train(
                system.model,
                dataset,
                run=path,
                resume=path.exists(),
                quiet=True,
                report=False,
                **({} if path.exists() else dict(system.config)),
            )
        else:
            rounds = None if trial else before.get("idle_rounds")
            run = trained(
                system.model,
                dataset,
                path,
                options.seed,
                cast(float, minutes),
                rounds,
                any_speed=options.any_speed or trial,
                **system.config,
            )
        model = pofx.load(run.path)
        found = measured(model, dataset)
        held = system.target is None or trial or found["value"] <= system.target
        missed += not held
        beside = results.get("ngram", {}).get("seeds", {}).get("0", {}).get("value")
        goal = "reported only" if system.target is None or trial else f"{'as it must be' if held else 'MISSED'}: at most {system.target}"
        print(
            f"{name:16s} {found['value']:.4f} +- {1.96 * found['error']:.4f} nats per character, {found['bits']:.4f} bits (n = {found['n']:,}"
            f"{f'; n-gram {beside:.4f}' if beside and name != 'ngram' else ''}; {run.info['parameters']:,} parameters, "
            f"{run.info['examples']:,} windows); {goal}",
            flush=True,
        )
        drawn = samples(model, dataset)
        for temperature, text in drawn.items():
            print(f"--- temperature {temperature}\n{text}")
        if trial:
            continue
        row = {
            "seed": options.seed,
            "config": run.info["config"],
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
            **described(run),
            **found,
            "target": system.target,
            "samples": drawn,
        }
        seeds = {**before.get("seeds", {}), str(options.seed): row}
        kept = None if options.any_speed or system.minutes is None else idle_rounds(seeds.values())
        results[name] = {"idle_rounds": kept or before.get("idle_rounds"), "seeds": seeds}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
