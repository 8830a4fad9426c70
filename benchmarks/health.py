"""Does the health monitor name what is wrong with a game, and is it silent where nothing is?

    python benchmarks/health.py [--part scoring] [--seeds 2] [--only WORD ...] [--replay]

Trains games that are broken on purpose, each in its way, and games as their recipe says, for some seconds each, and counts the
runs in which a failure was named at any time: recall among broken ones, false alarms among healthy ones. All that the monitor does
(looks, and checks before a checkpoint) may take 3 % of the processor's time. The thresholds of
`pofx/health.py` were set on the part `tuning`; `scoring` has other seeds and other data. A broken run counts as found where
one of the names that fit its kind was told. Runs are kept in runs/health, so that Ctrl-C loses nothing; `--replay`
asks the present detectors about the signals of kept runs instead of training. Writes benchmarks/results/health.json.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from drawn import DRAWN

import pofx
from pofx import data, discovery, health
from pofx.core import Budget, TrainingError
from pofx.data.dataset import Dataset, Split
from pofx.monitor import Monitor
from pofx.run import Run, hardware, versions
from pofx.vitals import SIGNALS

HERE = pathlib.Path(__file__).parent
RESULTS, RUNS = HERE / "results" / "health.json", HERE.parent / "runs" / "health"
#: Data of each part, and the first of its seeds. No data set and no seed is in both.
DATA = {
    "tuning": (
        "ring", "digits", "fashion_mnist", "grid", "checkerboard", "moons", "blobs", "sprites", "strokes", "circles", "spiral", "roll",
        "clusters", "discs", "checks", "pinwheel", "waves", "torus", "regression", "rainbows", "polygons", "lissajous", "stairs", "shell",
        "walks", "photographs", "crosses",
    ),
    "scoring": ("rose", "banana", "shares", "series", "gratings", "mosaics"),
}  # fmt: skip
IMAGES = (
    "digits", "fashion_mnist", "sprites", "strokes", "discs", "checks", "rainbows", "polygons", "photographs", "crosses", "gratings",
    "mosaics",
)  # fmt: skip
FIRST = {"tuning": 0, "scoring": 5000}
#: Rounds that take some ten to thirty seconds of one core.
ROUNDS = {"images": 600, "vectors": 1500}
#: So few training images that they can be learned by heart.
FEW = 100
RECALL, FALSE_ALARMS, SHARE = 0.95, 0.05, 0.03

WINS, OVERFITS, DEAD, DIVERGES, COLLAPSES, OSCILLATES, COPIES = health.NAMES


def _optimizers(config: Any, generator: float = 1.0, discriminator: float = 1.0) -> dict[str, Any]:
    """Other learning rates, in those of the recipe."""
    pairs = (("optimizer", generator), ("discriminator_optimizer", discriminator))
    return {name: dataclasses.replace(getattr(config, name), lr=getattr(config, name).lr * factor) for name, factor in pairs}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to train: fields of the config from the recipe's, and names that fit what goes wrong.

    few: whether only `FEW` training examples are kept; of images only, since small networks do not learn points of a plane by heart
        (25 of `ring`: as near to held-out as to training examples). deaf: whether the generator is given no noise.
    """

    fields: Callable[[Any], dict[str, Any]] = lambda config: {}
    few: bool = False
    deaf: bool = False
    fits: frozenset[str] = frozenset()


def _broken(fields: Callable[[Any], dict[str, Any]] = lambda config: {}, *fits: str, **more: Any) -> Kind:
    return Kind(fields, fits=frozenset(fits), **more)


KINDS = {
    "healthy": Kind(),
    "learning rates x100": _broken(lambda c: _optimizers(c, 100, 100), DIVERGES, COLLAPSES, WINS, DEAD, OSCILLATES),
    "strong discriminator, no penalty": _broken(
        lambda c: {"gamma": 0.0, "discriminator_steps": 5, **_optimizers(c, 0.02, 5)}, WINS, COLLAPSES, DIVERGES, OSCILLATES
    ),
    "frozen discriminator": _broken(lambda c: _optimizers(c, 1, 1e-5), DEAD, COLLAPSES, DIVERGES),
    "frozen generator": _broken(lambda c: _optimizers(c, 1e-5, 1), WINS),
    "no noise": _broken(lambda c: {}, COLLAPSES, deaf=True),
    "few examples": _broken(lambda c: {"gamma": 0.01}, OVERFITS, COPIES, WINS, COLLAPSES, few=True),
    "fast generator": _broken(lambda c: {"generator_steps": 5, **_optimizers(c, 20, 0.05)}, COLLAPSES, DEAD, OSCILLATES, DIVERGES),
    "minimax, discriminator far ahead": _broken(
        lambda c: {"loss": "minimax", "gamma": 0.0, "discriminator_steps": 10, **_optimizers(c, 0.02, 2)},
        WINS,
        COLLAPSES,
        DIVERGES,
        OSCILLATES,
    ),
    "crushing penalty": _broken(lambda c: {"gamma": 1e5}, DEAD, COLLAPSES, DIVERGES),
}


def dataset_of(name: str, seed: int, *, few: bool = False) -> Dataset:
    """A data set by name, all of it or few training examples. Those that are not built in are drawn here."""
    folder = RUNS / "data"
    if name not in data.names():
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.npy"
        if not path.exists():
            np.save(path, DRAWN[name](np.random.default_rng(0)))
        name = str(path)
    dataset = data.load(name, data.Options(seed=seed))
    if not few:
        return dataset
    return dataclasses.replace(dataset, train=_few(dataset, FEW), spec=dataclasses.replace(dataset.spec, size=FEW))


def _few(dataset: Dataset, n: int) -> Split:
    chosen = dataset.train.batch(dataset.train.positions(shuffle=1)[:n])
    return Split(chosen.x, chosen.label, bits=dataset.train.bits)


def deaf(cls: Any) -> Any:
    """The game with a generator that is given no noise."""

    class Deaf(cls):
        def _output(self, z: torch.Tensor, *rest: Any) -> torch.Tensor:
            return super()._output(torch.zeros_like(z), *rest)

    return Deaf


def config_of(cls: Any, dataset: Dataset, kind: Kind) -> Any:
    """The recipe, and what is wrong."""
    config = cls.recipe(dataset.spec, Budget(steps=ROUNDS[dataset.spec.kind])).config
    return dataclasses.replace(config, **kind.fields(config))


def trained(part: str, name: str, source: str, seed: int) -> pathlib.Path:
    """The folder of a run that has ended, one way or another."""
    kind, path = KINDS[name], RUNS / part / f"{name} - {source} - {seed}".replace(",", "")
    ended = path / "ended.json"
    if ended.exists():
        return path
    if path.exists():
        shutil.rmtree(path)
    cls = discovery.model("gan")
    dataset = dataset_of(source, seed, few=kind.few)
    config = config_of(cls, dataset, kind)
    # As many moves, whoever makes them.
    rounds = 2 * ROUNDS[dataset.spec.kind] // (config.discriminator_steps + config.generator_steps)
    settings = {"steps": rounds, "seed": seed, "checkpoint_every": 400, "batch_size": min(64, dataset.spec.size)}
    start, error = time.process_time(), ""
    watching: list[float] = []
    try:
        _clocked(watching)
        pofx.train(
            deaf(cls) if kind.deaf else cls, dataset, run=path, quiet=True, report=False, model_config=config, **settings
        )  # fmt: skip
    except TrainingError as failed:
        error = str(failed)
    took = {"error": error, "seconds": round(time.process_time() - start, 1), "watching": round(sum(watching), 2)}
    ended.write_text(json.dumps(took), encoding="utf-8")
    return path


def _clocked(watching: list[float]) -> None:
    """From here on all that a training asks of the monitor adds its seconds of the processor to `watching`."""

    def clocked(whole: Callable[..., Any]) -> Callable[..., Any]:
        def measured(self: Monitor, **more: Any) -> Any:
            start = time.process_time()
            try:
                return whole(self, **more)
            finally:
                watching.append(time.process_time() - start)

        measured.whole = whole  # type: ignore[attr-defined]
        return measured

    for name in ("watch", "look", "check"):
        method = getattr(Monitor, name)
        setattr(Monitor, name, clocked(getattr(method, "whole", method)))
    passed = Monitor.passed.fget
    Monitor.passed = property(clocked(getattr(passed, "whole", passed)))  # type: ignore[arg-type, assignment, method-assign]


def told(path: pathlib.Path, *, replay: bool) -> dict[str, str]:
    """Failure -> sentence, of all that was named at any time of a run."""
    run, ended = Run.read(path), json.loads((path / "ended.json").read_text(encoding="utf-8"))
    lines = run.metrics()
    found = dict(run.info.get("symptoms", {})) if not replay else {}
    records = []
    for line in lines:
        if not any(key.startswith("health/") for key in line):
            continue
        records.append(
            {name: line.get(f"health/{name}", np.nan) for name in SIGNALS} | {"step": line["step"], "progress": progress(run, line)}
        )
        found = (health.diagnose(records) if replay else line.get("symptoms", {})) | found
    if ended["error"]:
        found[DIVERGES] = ended["error"]
    return found


def progress(run: Run, line: dict[str, Any]) -> float:
    """The share of the budget that was done at a line: moves, in those of the whole."""
    config = run.info["config"]
    moves = config["discriminator_steps"] + config["generator_steps"]
    return min(1.0, line["step"] / (moves * run.info["training"]["steps"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=sorted(DATA), default="scoring")
    parser.add_argument("--seeds", type=int, default=1, help="of each broken kind on each data set")
    parser.add_argument("--healthy", type=int, default=5, help="seeds of healthy runs on each data set")
    parser.add_argument("--only", nargs="*", default=[], help="kinds, or data sets, with one of these words in their names")
    parser.add_argument("--replay", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, kind in KINDS.items():
        for source in DATA[options.part]:
            if kind.few and source not in IMAGES:
                continue
            if options.only and not any(word in f"{name} {source}" for word in options.only):
                continue
            for seed in range(options.seeds if kind.fits else options.healthy):
                seed += FIRST[options.part]
                path = RUNS / options.part / f"{name} - {source} - {seed}".replace(",", "")
                if options.replay and not (path / "ended.json").exists():
                    continue
                found = told(trained(options.part, name, source, seed), replay=options.replay)
                good = bool(kind.fits & found.keys()) if kind.fits else not found
                took = json.loads((path / "ended.json").read_text(encoding="utf-8"))
                rows.append({"kind": name, "data": source, "seed": seed, "told": found, "good": good, **took})
                print(f"{'ok' if good else 'WRONG':6}{name:34}{source:14}{seed:5}  {', '.join(found) or '-'}", flush=True)
    return report(options.part, rows)


def report(part: str, rows: list[dict[str, Any]]) -> int:
    """Prints recall and false alarms, of each kind and in all, and writes them."""
    print(f"\n{'kind':34}{'runs':>6}{'named':>7}{'right':>7}")
    for name in KINDS:
        mine = [row for row in rows if row["kind"] == name]
        if mine:
            print(f"{name:34}{len(mine):>6}{sum(bool(row['told']) for row in mine):>7}{sum(row['good'] for row in mine):>7}")
    broken, healthy = [r for r in rows if KINDS[r["kind"]].fits], [r for r in rows if not KINDS[r["kind"]].fits]
    recall = sum(row["good"] for row in broken) / max(1, len(broken))
    false = sum(not row["good"] for row in healthy) / max(1, len(healthy))
    print(f"\nrecall {recall:.1%} of {len(broken)} broken runs, false alarms in {false:.1%} of {len(healthy)} healthy runs ({part})")
    share = sum(row.get("watching", 0.0) for row in rows) / max(1e-9, sum(row["seconds"] for row in rows if "watching" in row))
    print(f"the monitor took {share:.1%} of the processor's time of these runs, which are short ({SHARE:.0%} at most)")
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept[part] = {
        "recall": recall, "broken": len(broken), "false_alarms": false, "healthy": len(healthy), "share_of_time": share,
        "versions": versions(), "hardware": hardware(), "runs": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0 if recall >= RECALL and false <= FALSE_ALARMS and share < SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
