"""How long an evaluation takes, and how much memory neighbours among 50,000 need.

    python benchmarks/evaluation.py [--run RUN] [--samples 10000]

Times every metric on a 28 x 28 model with 10,000 samples, whose drawing does not count; then precision, recall, density
and coverage of 50,000 against 50,000 in 64 dimensions, in a process of its own, with the most memory that it held.
Writes benchmarks/results/evaluation.json.
"""

import argparse
import json
import multiprocessing
import pathlib
import resource
import tempfile
import time

import numpy as np

import pofx
from pofx import discovery, examples, subject
from pofx.evaluate import modules
from pofx.run import Run, hardware, versions
from pofx.subject import Subject

RESULTS = pathlib.Path(__file__).parent / "results" / "evaluation.json"
BIG = 50_000


def neighbourhoods(answer: "multiprocessing.Queue[tuple[float, float]]") -> None:
    real, fake = np.random.default_rng(0).standard_normal((2, BIG, 64))
    start = time.perf_counter()
    pofx.metrics.prdc(real, fake)
    answer.put((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=pathlib.Path, help="a run on 28 x 28 images; by default a VAE of a few moves is made")
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    subject.SOME = options.samples
    with tempfile.TemporaryDirectory() as folder:
        path = options.run or pofx.train("vae", "fashion_mnist", run=f"{folder}/run", steps=300, quiet=True, report=False).path
        run = Run.open(path)
        model, dataset = run.model(), run.dataset()
        part, held = examples.held_out(dataset)
        times: dict[str, float] = {}
        with examples.asking(model):
            trial = Subject(model, dataset, dataset, held, part, info=run.info)
            print(
                f"{run.info['model']}: {len(trial.drawn):,} samples drawn in {sum(trial.drawing) * examples.PART:.1f} s, which do not count"
            )
            start = time.perf_counter()
            for which in ("real", "drawn", "other", "gaussian"):
                trial.seen(which)  # type: ignore[arg-type]
                trial.seen(which, trial.components)  # type: ignore[arg-type]
            trial.seen("training", trial.components)
            times["features"] = time.perf_counter() - start
            for name in modules(model):
                start = time.perf_counter()
                rows = list(discovery.load("metrics", name).measure(trial))
                times[name] = time.perf_counter() - start
                print(f"{name:16s} {times[name]:7.1f} s  {len(rows)} rows", flush=True)
    print(f"features         {times['features']:7.1f} s\ntogether         {sum(times.values()):7.1f} s")
    answer: multiprocessing.Queue[tuple[float, float]] = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=neighbourhoods, args=(answer,))
    process.start()
    seconds, memory = answer.get()
    process.join()
    print(f"neighbourhoods of {BIG:,} against {BIG:,}: {seconds:.0f} s, {memory:.0f} MB at most in the whole process")
    found = {"samples": options.samples, "seconds": times, "big": {"n": BIG, "seconds": seconds, "megabytes": memory}}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found | {"hardware": hardware(), "versions": versions()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
