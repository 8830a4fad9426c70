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
IMAGES = frozenset(
    {
        "digits",
        "fashion_mnist",
        "sprites",
        "strokes",
        "discs",
        "checks",
        "rainbows",
        "polygons",
        "photographs",
        "crosses",
        "gratings",
        "mosaics",
    }
)
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


def _moons(random: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import make_moons

    return (2 * make_moons(20_000, noise=0.05, random_state=0)[0]).astype(np.float32)


def _blobs(random: np.random.Generator) -> np.ndarray:
    """12 Gaussians in ten dimensions."""
    centres = 2 * random.standard_normal((12, 10))
    return (centres[random.integers(12, size=20_000)] + 0.3 * random.standard_normal((20_000, 10))).astype(np.float32)


def _strokes(random: np.random.Generator) -> np.ndarray:
    """Grey images of 16 x 16: a soft straight stroke of random place, direction and width."""
    y, x = np.mgrid[:16, :16]
    n = 6000
    angle, width = random.uniform(0, np.pi, (n, 1, 1)), random.uniform(0.7, 2.0, (n, 1, 1))
    cx, cy = random.uniform(4, 11, (2, n, 1, 1))
    across = (x - cx) * np.sin(angle) - (y - cy) * np.cos(angle)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    shade = np.exp(-0.5 * (across / width) ** 2) / (1 + np.exp(2 * (np.abs(along) - 5)))
    return (255 * shade).astype(np.uint8)


def _circles(random: np.random.Generator) -> np.ndarray:
    """Two circles, one in the other."""
    from sklearn.datasets import make_circles

    return (2 * make_circles(20_000, noise=0.03, factor=0.4, random_state=0)[0]).astype(np.float32)


def _spiral(random: np.random.Generator) -> np.ndarray:
    """Two arms that wind around each other."""
    turn = 3 * np.pi * np.sqrt(random.random(20_000))
    arm = np.where(random.random(20_000) < 0.5, 1.0, -1.0)
    x = np.stack((arm * turn * np.cos(turn), arm * turn * np.sin(turn)), 1) / 4
    return (x + 0.06 * random.standard_normal(x.shape)).astype(np.float32)


def _roll(random: np.random.Generator) -> np.ndarray:
    """A rolled-up sheet in three dimensions."""
    from sklearn.datasets import make_swiss_roll

    return (make_swiss_roll(20_000, noise=0.3, random_state=0)[0] / 6).astype(np.float32)


def _clusters(random: np.random.Generator) -> np.ndarray:
    """Seven Gaussians in six dimensions, of unequal shares and widths."""
    centres, width = 2 * random.standard_normal((7, 6)), random.uniform(0.15, 0.6, 7)
    which = random.choice(7, 20_000, p=np.arange(1, 8) / 28)
    return (centres[which] + width[which, None] * random.standard_normal((20_000, 6))).astype(np.float32)


def _discs(random: np.random.Generator) -> np.ndarray:
    """Grey images of 20 x 20: one soft disc or two, of random place, size and shade."""
    y, x = np.mgrid[:20, :20]
    n, image = 6000, np.zeros((6000, 20, 20))
    for shown in (np.ones((n, 1, 1)), random.random((n, 1, 1)) < 0.5):
        cx, cy = random.uniform(5, 15, (2, n, 1, 1))
        radius, shade = random.uniform(2, 5, (n, 1, 1)), random.uniform(0.4, 1, (n, 1, 1))
        disc = shade / (1 + np.exp(2 * (np.hypot(x - cx, y - cy) - radius)))
        image = np.maximum(image, shown * disc)
    return (255 * image).astype(np.uint8)


def _checks(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: a chequered cloth of two random colours, period and offset."""
    y, x = np.mgrid[:16, :16]
    n = 6000
    period, (dx, dy) = random.integers(4, 9, (n, 1, 1)), random.integers(0, 8, (2, n, 1, 1))
    which = ((x + dx) // period + (y + dy) // period) % 2
    colours = random.uniform(0, 255, (2, n, 1, 1, 3))
    return np.where(which[..., None] == 1, colours[0], colours[1]).astype(np.uint8)


def _pinwheel(random: np.random.Generator) -> np.ndarray:
    """Five blades that are bent around the middle."""
    blade = random.integers(5, size=20_000)
    out, across = 1 + 0.3 * random.standard_normal(20_000), 0.1 * random.standard_normal(20_000)
    angle = 2 * np.pi * blade / 5 + 0.25 * np.exp(out)
    x = np.stack((out * np.cos(angle) - across * np.sin(angle), out * np.sin(angle) + across * np.cos(angle)), 1)
    return (2 * x).astype(np.float32)


def _waves(random: np.random.Generator) -> np.ndarray:
    """Sine waves of random height and phase, with noise, read at twelve moments."""
    height, phase = random.uniform(0.5, 2, (20_000, 1)), random.uniform(0, 2 * np.pi, (20_000, 1))
    x = height * np.sin(np.linspace(0, 3 * np.pi, 12) + phase)
    return (x + 0.1 * random.standard_normal(x.shape)).astype(np.float32)


def _torus(random: np.random.Generator) -> np.ndarray:
    """The surface of a ring in three dimensions."""
    around, within = random.uniform(0, 2 * np.pi, (2, 20_000))
    across = 2 + 0.8 * np.cos(within)
    x = np.stack((across * np.cos(around), across * np.sin(around), 0.8 * np.sin(within)), 1)
    return (x + 0.05 * random.standard_normal(x.shape)).astype(np.float32)


def _regression(random: np.random.Generator) -> np.ndarray:
    """Five independent uniform numbers and what Friedman's first function makes of them."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(20_000, n_features=5, noise=0.5, random_state=0)
    return np.column_stack((x, y)).astype(np.float32)


def _rainbows(random: np.random.Generator) -> np.ndarray:
    """Colour images of 24 x 24: a smooth change from one random colour to another, in a random direction."""
    y, x = np.mgrid[:24, :24] / 23 - 0.5
    n = 6000
    angle, sharp = random.uniform(0, 2 * np.pi, (n, 1, 1)), random.uniform(2, 12, (n, 1, 1))
    share = 1 / (1 + np.exp(-sharp * (x * np.cos(angle) + y * np.sin(angle))))[..., None]
    colours = random.uniform(0, 255, (2, n, 1, 1, 3))
    return (share * colours[0] + (1 - share) * colours[1]).astype(np.uint8)


def _polygons(random: np.random.Generator) -> np.ndarray:
    """Grey images of 28 x 28: the soft outline of a regular polygon of three to six corners, of random size, place and direction."""
    y, x = np.mgrid[:28, :28]
    n = 6000
    corners, turn = random.integers(3, 7, (n, 1, 1)), random.uniform(0, 2 * np.pi, (n, 1, 1))
    cx, cy = random.uniform(11, 16, (2, n, 1, 1))
    radius = random.uniform(5, 9, (n, 1, 1))
    side = 2 * np.pi / corners
    angle = (np.arctan2(y - cy, x - cx) + turn) % side - side / 2
    off = np.hypot(x - cx, y - cy) * np.cos(angle) - radius * np.cos(side / 2)
    return (255 * np.exp(-0.5 * off**2)).astype(np.uint8)


def _lissajous(random: np.random.Generator) -> np.ndarray:
    """A closed curve in the plane that crosses itself."""
    turn = random.uniform(0, 2 * np.pi, 20_000)
    x = np.stack((2 * np.sin(3 * turn), 2 * np.sin(2 * turn + 0.7)), 1)
    return (x + 0.05 * random.standard_normal(x.shape)).astype(np.float32)


def _stairs(random: np.random.Generator) -> np.ndarray:
    """Six flat steps, the lower ones trodden more often."""
    step = random.choice(6, 20_000, p=np.arange(6, 0, -1) / 21)
    x = np.stack((step + random.uniform(0, 1, 20_000), 0.7 * step + 0.04 * random.standard_normal(20_000)), 1)
    return (x - 2).astype(np.float32)


def _shell(random: np.random.Generator) -> np.ndarray:
    """The surface of a ball in four dimensions."""
    x = random.standard_normal((20_000, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (2 * x * (1 + 0.03 * random.standard_normal((20_000, 1)))).astype(np.float32)


def _walks(random: np.random.Generator) -> np.ndarray:
    """Walks of ten random strides."""
    return (0.5 * random.standard_t(5, (20_000, 10)).cumsum(1)).astype(np.float32)


def _photographs(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: pieces of the two photographs that come with scikit-learn, half as large."""
    from sklearn.datasets import load_sample_images

    pieces = []
    for photograph in load_sample_images().images:
        small = photograph[: len(photograph) // 2 * 2].reshape(-1, 2, 320, 2, 3).mean((1, 3))
        tops, lefts = random.integers(len(small) - 16, size=3000), random.integers(320 - 16, size=3000)
        pieces += [small[top : top + 16, left : left + 16] for top, left in zip(tops, lefts, strict=True)]
    return random.permutation(np.array(pieces).astype(np.uint8))


def _crosses(random: np.random.Generator) -> np.ndarray:
    """Grey images of 18 x 18: two soft bars of random length that cross at right angles."""
    y, x = np.mgrid[:18, :18]
    n = 6000
    angle = random.uniform(0, np.pi / 2, (n, 1, 1))
    cx, cy = random.uniform(6, 11, (2, n, 1, 1))
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    image = np.zeros((n, 18, 18))
    for of, off in ((along, across), (across, along)):
        image = np.maximum(image, np.exp(-0.5 * off**2) / (1 + np.exp(2 * (np.abs(of) - random.uniform(2, 6, (n, 1, 1))))))
    return (255 * image).astype(np.uint8)


def _rose(random: np.random.Generator) -> np.ndarray:
    """A flower of five petals, drawn with a thin line."""
    turn = random.uniform(0, np.pi, 20_000)
    out = 2.5 * np.cos(5 * turn)
    x = np.stack((out * np.cos(turn), out * np.sin(turn)), 1)
    return (x + 0.04 * random.standard_normal(x.shape)).astype(np.float32)


def _banana(random: np.random.Generator) -> np.ndarray:
    """A bent Gaussian beside a round one that is a quarter as frequent."""
    x = random.standard_normal((20_000, 2))
    x[:, 1] = 0.4 * x[:, 1] + x[:, 0] ** 2 - 1
    far = random.random(20_000) < 0.2
    x[far] = (0.0, 3.0) + 0.3 * random.standard_normal((int(far.sum()), 2))
    return x.astype(np.float32)


def _shares(random: np.random.Generator) -> np.ndarray:
    """Four shares of a whole, most of them small."""
    return (4 * random.dirichlet((0.8, 0.8, 1.5, 3.0), 20_000)).astype(np.float32)


def _series(random: np.random.Generator) -> np.ndarray:
    """Eight steps of an autoregression of second order that swings."""
    x = np.zeros((20_000, 48))
    for t in range(2, 48):
        x[:, t] = 1.4 * x[:, t - 1] - 0.8 * x[:, t - 2] + 0.5 * random.standard_normal(20_000)
    return x[:, -8:].astype(np.float32)


def _gratings(random: np.random.Generator) -> np.ndarray:
    """Grey images of 20 x 20: waves of random direction, length and phase under a soft round window."""
    y, x = np.mgrid[:20, :20] - 9.5
    n = 6000
    angle, phase = random.uniform(0, np.pi, (n, 1, 1)), random.uniform(0, 2 * np.pi, (n, 1, 1))
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / random.uniform(4, 10, (n, 1, 1)) + phase)
    return (127.5 * (1 + wave * np.exp(-(x**2 + y**2) / random.uniform(25, 90, (n, 1, 1))))).astype(np.uint8)


def _mosaics(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: four tiles by four, each in one of three colours that differ from picture to picture."""
    n = 6000
    colours, which = random.uniform(0, 255, (n, 3, 3)), random.integers(3, size=(n, 16))
    tiles = np.take_along_axis(colours, which[..., None], 1).reshape(n, 4, 4, 3)
    return tiles.repeat(4, 1).repeat(4, 2).astype(np.uint8)


DRAWN = {
    "moons": _moons, "blobs": _blobs, "strokes": _strokes, "circles": _circles, "spiral": _spiral, "roll": _roll, "clusters": _clusters,
    "discs": _discs, "checks": _checks, "pinwheel": _pinwheel, "waves": _waves, "torus": _torus, "regression": _regression,
    "rainbows": _rainbows, "polygons": _polygons, "lissajous": _lissajous, "stairs": _stairs, "shell": _shell, "walks": _walks,
    "photographs": _photographs, "crosses": _crosses, "rose": _rose, "banana": _banana, "shares": _shares, "series": _series,
    "gratings": _gratings, "mosaics": _mosaics,
}  # fmt: skip


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
