"""Nats per character of tiny-shakespeare at a stated time, beside an n-gram model.

    python benchmarks/text.py [SYSTEM ...] [--seeds 3] [--data tiny_shakespeare]
    python benchmarks/text.py --rehearse

Trains each system for its minutes and scores the last tenth of the text, which no training and no choice has seen, in windows of
256 characters that do not overlap, with no context at the start of each. Systems learn from the first nine tenths whole, nothing being
chosen in them; the 2 % next to the test part, which are of the same plays, are worth 0.07 nats to an n-gram. Only a network that is to be part of a
hybrid trains on the first 88 %: a hybrid multiplies it with n-grams of the nine tenths, and chooses on the 2 % between how (`pofx mix`),
which takes seconds that its own count beside the network's. The n-gram beside each is measured on the same windows.
Prints a table, with samples at three temperatures, and writes benchmarks/results/text.json, system by system and seed by seed. Ctrl-C
loses nothing: a training goes on where it was stopped, a finished one is not done again. --rehearse only records how many rounds the
minutes are, by one minute of each network on an idle machine; trainings for these rounds may then share the machine.
"""

import argparse
import dataclasses
import datetime
import json
import math
import pathlib
import re
import shutil
import statistics
import sys
from collections.abc import Mapping
from typing import Any, cast

import torch
from idle import Record, described, flags, kept, rehearsed, rounds, trained

import pofx
from pofx import data, examples, mixing
from pofx.core import Model, Scores
from pofx.data.dataset import Dataset
from pofx.run import INFO, Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "text.json"
WINDOW, ROWS = 256, 64
TEMPERATURES = (0.5, 0.8, 1.0)
#: The order of the n-gram model beside the others.
ORDER = 6


@dataclasses.dataclass(frozen=True)
class System:
    """model, config: what is trained, beside its recipe; of a hybrid, model is the system that it is made of.
    minutes: for how long; None: one pass, however long that takes. target: what it must reach; None: it is only reported.
    validation: share of the training part that is held back; None: 2 %."""

    model: str
    config: Mapping[str, Any]
    minutes: float | None
    target: float | None
    validation: float | None = None
    hybrid: bool = False


SYSTEMS = {
    "ngram": System("ngram", {"order": ORDER}, None, None, validation=0.0),
    "gpt": System("gpt", {}, 10, 1.46, validation=0.0),
    "rnn": System("rnn", {}, 10, None, validation=0.0),
    "gpt of 88 %": System("gpt", {}, 10, None),
    "hybrid": System("gpt of 88 %", {}, 10, 1.42, hybrid=True),
    "gpt, an hour": System("gpt", {}, 60, 1.45, validation=0.0),
    "gpt of 88 %, an hour": System("gpt", {}, 60, None),
    "hybrid, an hour": System("gpt of 88 %, an hour", {}, 60, 1.39, hybrid=True),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """How systems are trained. minutes: instead of each one's own; None: its own. any_speed: go by the clock of a busy machine."""

    source: str
    folder: pathlib.Path
    minutes: float | None
    any_speed: bool

    def dataset(self, system: System) -> Dataset:
        """The text, divided as a system wants it."""
        return data.load(self.source, data.Options(validation=system.validation))

    def path(self, name: str, seed: int) -> pathlib.Path:
        """The folder of a run."""
        trial = f"-{self.minutes:g}min" if self.minutes is not None else ""
        return self.folder / f"{re.sub('[^a-z0-9]+', '-', name).strip('-')}-{seed}{trial}"

    def run(self, name: str, seed: int, known: Mapping[str, Record | None]) -> tuple[Run, Run]:
        """The finished run of a system, and that of the network in it, which is the same but for a hybrid.

        Arguments:
            known: records of the last idle run of each system.
        """
        system, path = SYSTEMS[name], self.path(name, seed)
        # Only its network is trained.
        if system.hybrid:
            network = self.run(system.model, seed, known)[1]
            return _mixed(network), network
        dataset = self.dataset(system)
        if system.minutes is None:
            given = {} if path.exists() else dict(system.config)
            run = pofx.train(system.model, dataset, run=path, resume=path.exists(), quiet=True, report=False, **given)
        else:
            run = trained(
                system.model,
                dataset,
                path,
                seed,
                self.minutes or system.minutes,
                known.get(name) if self.minutes is None else None,
                any_speed=self.any_speed or self.minutes is not None,
                **system.config,
            )
        return run, run


def _mixed(network: Run) -> Run:
    """A network with n-grams, made once."""
    path = network.path.with_name(f"hybrid-{network.path.name}")
    if (path / INFO).exists():
        return Run.open(path)
    # What may be there was stopped while it was made: this file comes last.
    shutil.rmtree(path, ignore_errors=True)
    return mixing.mix([str(network.path)], out=path).run


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


def records(results: Mapping[str, Any]) -> dict[str, Record | None]:
    """What an idle machine makes of the minutes of each system."""
    return {name: found.get("idle_rounds") for name, found in results.items()}


def write(results: Mapping[str, Any]) -> None:
    """Keeps what was measured so far."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rehearse(names: list[str], trial: Trial, results: dict[str, Any]) -> None:
    """Records how many rounds the minutes of networks are."""
    for name in names:
        system = SYSTEMS[name]
        if system.minutes is None or system.hybrid:
            continue
        dataset = trial.dataset(system)
        record = rehearsed(system.model, dataset, system.minutes, **system.config)
        results[name] = {"seeds": {}, **results.get(name, {}), "idle_rounds": record}
        write(results)
        print(f"{name}: {rounds(record):,} rounds in {system.minutes:g} minutes", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--data", default="tiny_shakespeare")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--minutes", type=float, help="instead of each system's own: a trial, which is not written down")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/text"))
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    for name in options.systems:
        if name not in SYSTEMS:
            parser.error(f"there is no system {name!r}: {', '.join(SYSTEMS)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    trial = Trial(options.data, options.folder, options.minutes, options.any_speed)
    if options.rehearse:
        rehearse(options.systems, trial, results)
        return 0
    missed = 0
    for name in options.systems:
        # Counting draws no random number.
        seeds = range(options.seed, options.seed + (1 if SYSTEMS[name].minutes is None else options.seeds))
        rows = [row(name, seed, trial, results) for seed in seeds]
        values = [found["value"] for found in rows]
        missed += sum(found["target"] is not None and value > found["target"] for found, value in zip(rows, values, strict=True))
        if len(rows) > 1:
            print(
                f"{name:16s} {statistics.mean(values):.4f}, mean of {len(rows)} seeds, from {min(values):.4f} to {max(values):.4f}",
                flush=True,
            )
    return int(missed > 0)


def row(name: str, seed: int, trial: Trial, results: dict[str, Any]) -> dict[str, Any]:
    """Trains, measures, prints and keeps a system with one seed."""
    system = SYSTEMS[name]
    run, network = trial.run(name, seed, records(results))
    model, dataset = pofx.load(run.path), run.dataset()
    found = measured(model, dataset)
    target = system.target if trial.minutes is None else None
    goal = "reported only" if target is None else f"{'as it must be' if found['value'] <= target else 'MISSED'}: at most {target}"
    counted = next(iter(results.get("ngram", {}).get("seeds", {}).values()), None)
    beside = f"; n-gram {counted['value']:.4f}, {counted['learned']}" if counted and name != "ngram" else ""
    share = len(dataset.train) / sum(len(part) for part in (dataset.train, dataset.validation, dataset.test) if part is not None)
    learned = f"learned from the first {share:.0%}{', its n-grams from 90%' if system.hybrid else ''}"
    print(
        f"{name:16s} {found['value']:.4f} +- {1.96 * found['error']:.4f} nats per character, {found['bits']:.4f} bits, {learned} "
        f"(n = {found['n']:,}{beside}; {run.info['parameters']:,} parameters, {network.info['examples']:,} windows, "
        f"{run.info['seconds']:,.0f} s); {goal}",
        flush=True,
    )
    drawn = samples(model, dataset)
    for temperature, text in drawn.items():
        print(f"--- temperature {temperature}\n{text}")
    made = {
        "seed": seed,
        "config": run.info["config"],
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        # Of a hybrid the rounds of its network, and the seconds of both.
        **described(network),
        "by_the_clock": not network.info["exact"] and system.minutes is not None and not system.hybrid,
        "seconds": run.info["seconds"],
        "parameters": run.info["parameters"],
        "any_speed": trial.any_speed,
        "learned": learned,
        # Without the folder, which is a matter of the machine.
        **({"hybrid": [part.replace(f"{network.path.parent}/", "") for part in run.info["parts"]]} if system.hybrid else {}),
        **found,
        "target": target,
        "samples": drawn,
    }
    if trial.minutes is None:
        results[name] = kept(results.get(name, {}), made)
        write(results)
    return made


if __name__ == "__main__":
    sys.exit(main())
