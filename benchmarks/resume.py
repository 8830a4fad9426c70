"""Kills trainings with SIGKILL, 20 times a model, and resumes them: every end must equal the straight run's bit for bit.

    python benchmarks/resume.py [MODEL ...] [--kills 20]

Prints a table and writes benchmarks/results/resume.json, model by model. The exit code is 1 where a run differs or too few kills hit
the places that count: a clock above 0, the middle of a save, the moves of each player, the middle of an accumulated batch.
"""

import argparse
import json
import pathlib
import random
import signal
import sys
import tempfile
from typing import Any

import kill

from pofx import checkpoint

RESULTS = pathlib.Path(__file__).parent / "results" / "resume.json"


def calls(name: str, folder: pathlib.Path) -> list[tuple[str, int]]:
    """The calls in which a training can be killed, loss:PLAYER of each player, or fit of a model without players, and how many there are."""
    players = kill.tiny(name, folder).players()
    found = []
    for player in players:
        # The rounds that are whole in the player's share of the budget; passes over the data make a move or more.
        rounds = int((player.span[1] - player.span[0]) * kill.ROUNDS)
        found.append((f"loss:{player.name}", rounds * (player.steps if isinstance(player.steps, int) else 1)))
    return found or [("fit", kill.ROUNDS)]


def points(places: list[tuple[str, int]], kills: int, dice: random.Random) -> list[tuple[str, int]]:
    """(point, accumulate) of each kill: a third each in saves, whole batches and halves of batches, players in turn.

    Most fall late enough for a checkpoint to be there; one falls before the first.
    """
    chosen = []
    for number in range(kills):
        place, often = places[number // 3 % len(places)]
        if number % 3 == 0:
            # The first save takes 8 events or more, so that later ones hit the second save and those after it.
            chosen.append((f"save:{dice.randint(12, 24)}", 1))
        elif number % 3 == 1 or place == "fit":
            # A pass takes whole batches only.
            chosen.append((f"{place}:{1 if number == 1 else dice.randint(often // 2 + 1, often)}", 1))
        else:
            # Even calls are the second halves: the gradient of the first half is there, that of the second is not.
            chosen.append((f"{place}:{2 * dice.randint(often // 2 + 1, often)}", 2))
    return chosen


def arguments(name: str, folder: pathlib.Path, run: pathlib.Path, accumulate: int) -> list[str]:
    """The training of a model; one without players reads the text once, in windows so small that it takes a few batches."""
    few = [] if kill.tiny(name, folder).players() else ["--model.window", "16"]
    return kill.arguments(name, folder, run, *few, accumulate=accumulate)


def resumed(name: str, folder: pathlib.Path, number: int, point: str, accumulate: int) -> tuple[int, dict[str, str]]:
    """The clock from which a killed run went on, and the hashes at its end. Raises `RuntimeError` where it did not die."""
    run = folder / f"killed-{number}"
    died = kill.child(point, arguments(name, folder, run, accumulate))
    if died.returncode != -signal.SIGKILL:
        raise RuntimeError(f"{name} at {point} was not killed but ended with {died.returncode}: {died.stderr}")
    clock = max(checkpoint.steps(run / "checkpoints"), default=0)
    again = kill.child("never", ["train", "--run", str(run), "--resume", "--quiet"])
    if again.returncode != 0:
        raise RuntimeError(f"{name} did not resume after {point}: {again.stderr}")
    return clock, kill.hashes(run)


def measure(name: str, kills: int, folder: pathlib.Path) -> dict[str, Any]:
    """One model: its straight runs, then every kill."""
    expected = {}
    for accumulate in (1, 2):
        run = folder / f"straight-{accumulate}"
        done = kill.child("never", arguments(name, folder, run, accumulate))
        if done.returncode != 0:
            raise RuntimeError(f"{name} does not train: {done.stderr}")
        expected[accumulate] = kill.hashes(run)
    rows, places = [], calls(name, folder)
    for number, (point, accumulate) in enumerate(points(places, kills, random.Random(name))):
        clock, hashes = resumed(name, folder, number, point, accumulate)
        rows.append({"point": point, "accumulate": accumulate, "clock": clock, "equal": hashes == expected[accumulate]})
    inside = {place: sum(row["point"].startswith(f"{place}:") for row in rows) for place, _ in places}
    halves = "fit" not in inside
    return {
        "kills": len(rows),
        "equal": sum(row["equal"] for row in rows),
        "clock above 0": sum(row["clock"] > 0 for row in rows),
        "inside a save": sum(row["point"].startswith("save") for row in rows),
        "inside a player, fewest": min(inside.values()),
        # A model without players accumulates nothing.
        **({"mid-accumulation": sum(row["accumulate"] == 2 for row in rows)} if halves else {}),
        "rows": rows,
    }


LEAST = {"clock above 0": 15, "inside a save": 3, "inside a player, fewest": 3, "mid-accumulation": 2}


def main() -> int:
    """Every model that is trained, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=None)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    names = options.models or kill.trained_models()
    found: dict[str, object] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    good = True
    columns = ["kills", "equal", *LEAST]
    print("model".ljust(14) + "".join(column.rjust(26) for column in columns))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(name, options.kills, pathlib.Path(folder))
        print(name.ljust(14) + "".join(str(result.get(column, "-")).rjust(26) for column in columns), flush=True)
        enough = options.kills < 20 or all(result[column] >= least for column, least in LEAST.items() if column in result)
        good = good and enough and result["equal"] == result["kills"]
        # Model by model: what took hours is not lost with what comes after it.
        found[name] = result
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
