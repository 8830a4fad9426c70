"""Damages a checkpoint 200 times at random, by a flipped bit or a truncation: none may load silently.

    python benchmarks/corruption.py [--times 200]

Prints a table and writes benchmarks/results/corruption.json; the exit code is 1 where damage went unnoticed.
"""

import argparse
import collections
import json
import pathlib
import random
import sys
import tempfile

import kill

from pofx import checkpoint

RESULTS = pathlib.Path(__file__).parent / "results" / "corruption.json"


def damage(content: bytes, dice: random.Random) -> tuple[str, bytes]:
    """What was done, and the damaged content."""
    if dice.random() < 0.5:
        return "truncated", content[: dice.randrange(len(content))]
    changed = bytearray(content)
    changed[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return "flipped", bytes(changed)


def main() -> int:
    """Trains once, damages often."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=200)
    options = parser.parse_args()
    dice, counts = random.Random(0), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        run = pathlib.Path(name) / "run"
        done = kill.child("never", kill.arguments(kill.first(), pathlib.Path(name), run))
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        folder = checkpoint.folder(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])
        files = sorted(folder.iterdir())
        for _ in range(options.times):
            file = dice.choice(files)
            whole = file.read_bytes()
            how, changed = damage(whole, dice)
            file.write_bytes(changed)
            try:
                checkpoint.read(folder)
                counts[file.name, how, "silent"] += 1
            except checkpoint.Damaged as error:
                counts[file.name, how, "named" if file.name in str(error) else "not named"] += 1
            file.write_bytes(whole)
        checkpoint.read(folder)  # whole again
    print(f"{'file':24}{'damage':12}{'outcome':12}{'times':>6}")
    for (file_name, how, outcome), times in sorted(counts.items()):
        print(f"{file_name:24}{how:12}{outcome:12}{times:6}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([[*key, times] for key, times in sorted(counts.items())]) + "\n", encoding="utf-8")
    return int(any(outcome != "named" for _, _, outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
