"""How much memory training takes on a million images: python benchmarks/memory.py [--images 1000000] [--size 64]

Writes random 8-bit images to a .npy file, trains a small autoencoder on it through the command line and on a thousand of
the same images, and prints the largest anonymous resident memory of both and their difference. Pages of the mapped file
do not count: the system takes them back when it needs them. Writes benchmarks/results/memory.json. Linux only.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results" / "memory.json"


def write(path: pathlib.Path, images: int, size: int) -> None:
    """Random images, some at a time."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, size, size))
    for start in range(0, images, 10_000):
        stop = min(images, start + 10_000)
        array[start:stop] = random.integers(0, 256, (stop - start, size, size), dtype=np.uint8)
    array.flush()


def anonymous(pid: int) -> int:
    """Bytes of anonymous resident memory of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def peak(data: pathlib.Path, run: pathlib.Path) -> int:
    """The largest anonymous memory of a training on `data`, looked at twenty times a second."""
    command = [sys.executable, "-m", "pofx", "train", "autoencoder", "--data", str(data), "--run", str(run), "--steps", "200", "--quiet"]
    environment = {**os.environ, "POFX_CACHE": str(run.parent / "cache")}
    largest = 0
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            try:
                largest = max(largest, anonymous(process.pid))
            except (FileNotFoundError, ProcessLookupError):
                break  # it ended in between
            time.sleep(0.05)
    if process.returncode:
        sys.exit("the training failed")
    return largest


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for images in (1000, options.images):
            data = pathlib.Path(folder) / f"{images}.npy"
            write(data, images, options.size)
            found[images] = peak(data, pathlib.Path(folder) / f"run-{images}")
            print(f"{images:>9,} images of {options.size} x {options.size}: at most {found[images] / 1e6:,.0f} MB", flush=True)
            data.unlink()
    more = found[options.images] - found[1000]
    print(f"{more / 1e6:,.0f} MB more")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"size": options.size, "bytes": found, "more": more}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
