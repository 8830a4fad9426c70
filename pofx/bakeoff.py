"""Which kind of model fits these data? Trains every model that can, for equal times, and says which to take for what.

The choice is made on the validation part; what is chosen is then measured on the test part, which nothing was chosen by.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from pofx import advice, api, compare, discovery, page
from pofx import data as sources
from pofx.advice import Choice
from pofx.checkpoint import replace_file
from pofx.comparison import Comparison, side_by_side
from pofx.core import Budget, Classifies, Encodes, Model, Samples, Scores, TrainingError, UsageError
from pofx.data.dataset import Dataset
from pofx.evaluate import Report
from pofx.progress import Display
from pofx.run import INFO, Run, next_folder, same_data, trained_on

STATE, PAGE = "bakeoff.json", "report.html"
#: Seconds of training below which a model has learned nothing worth comparing.
LEAST = 5.0
#: Seconds that evaluating one run takes, about; only for the time that is announced.
EVALUATING = 30.0
DONE = ("finished", "stopped early")


class Stopped(KeyboardInterrupt):
    """The bakeoff was stopped, and what is done is kept. `code` is the exit status that says so."""

    def __init__(self, path: pathlib.Path, cause: KeyboardInterrupt) -> None:
        super().__init__(f"stopped; all that was done is kept: go on with `pofx bakeoff --run {path}`")
        self.code = int(getattr(cause, "code", 130))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained: on which data, for how many minutes in total, which models (none: all that fit), how many seeds."""

    source: str
    minutes: float = 10.0
    models: tuple[str, ...] = ()
    seeds: int = 2
    options: sources.Options = dataclasses.field(default_factory=sources.Options)

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise UsageError(f"--minutes must be more than 0, not {self.minutes:g}")
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, not {self.seeds}")
        for name in self.models:
            discovery.model(name)  # a mistyped name is told before anything else

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-able values."""
        return {**vars(self), "models": list(self.models), "options": self.options.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Plan":
        """The plan that `to_json` wrote."""
        return cls(**{**values, "models": tuple(values["models"]), "options": sources.Options.from_json(values["options"])})


def open_plan(
    path: pathlib.Path, source: str | None, minutes: float | None, models: Sequence[str], seeds: int | None, options: sources.Options
) -> Plan:
    """The plan of a bakeoff that stands in `path`, else of these. Raises `UsageError` where given values differ from a
    stored one, or where there is none and data are missing."""
    given = {"source": source, "minutes": minutes, "models": tuple(models) or None, "seeds": seeds}
    given["options"] = options if options != sources.Options() else None
    given = {name: value for name, value in given.items() if value is not None}
    if not (path / STATE).exists():
        if "source" not in given:
            raise UsageError("name the data: pofx bakeoff --data SOURCE --minutes M")
        return Plan(**given)
    plan = Plan.from_json(_read(path)["plan"])
    for name, value in given.items():
        if value != getattr(plan, name):
            flag = {"source": "data", "options": "data.*"}.get(name, name)
            raise UsageError(f"--{flag} differs from that of the bakeoff in {path}: leave it out to go on, or choose another --run")
    return plan


def folder(source: str) -> pathlib.Path:
    """runs/bakeoff-DATA-NNN, the first that is free."""
    return next_folder(pathlib.Path("runs"), f"bakeoff-{api.stem(source)}")


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        state["plan"], state["models"], state["left_out"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path / STATE} is unreadable: choose another --run, or delete it to measure the runs in {path} again") from error
    return state


# ----------------------------------------------------------------------------------------------------- candidates


def candidates(plan: Plan, dataset: Dataset) -> tuple[list[str], dict[str, str]]:
    """The models that can learn these data and then sample, score or encode, and why each other one is left out."""
    found: list[str] = []
    left_out: dict[str, str] = {}
    names = plan.models or [name for name in discovery.names("models") if dataset.spec.kind in discovery.model(name).kinds]
    budget = Budget(minutes=plan.minutes / (max(1, len(names)) * plan.seeds))
    for name in names:
        try:
            cls = discovery.model(name)
            model = api.build(cls, dataset.spec, api.recipe(cls, name, dataset.spec, budget).config, seed=0)
        except Exception as error:  # one model that cannot be built is no reason to try none
            left_out[name] = _reason(error)
            continue
        if _useful(model):
            found.append(name)
        else:
            left_out[name] = "it neither samples nor scores, and its codes are those of a classifier"
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"no model can be tried on {dataset.source}: {reasons or f'none takes {dataset.spec.kind}'}")
    return found, left_out


def _useful(model: Model) -> bool:
    able = model.capabilities
    return bool(able & {Samples, Scores}) or (Encodes in able and Classifies not in able)


def _reason(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, (UsageError, TrainingError)) and message else f"{type(error).__name__}: {message}"


# ------------------------------------------------------------------------------------------------------- the work


class Bakeoff:
    """A bakeoff in its folder, which holds a run folder MODEL-SEED for each model and seed, and what was found.

    Arguments:
        path: the folder; one with an unfinished bakeoff is continued.
        quiet: no progress.
    """

    def __init__(self, path: pathlib.Path, plan: Plan, *, quiet: bool = False) -> None:
        self.path, self.plan = path, plan
        self.display = Display(quiet=quiet)
        self.quiet = quiet
        dataset = sources.load(plan.source, plan.options)
        api.check_varied(dataset)
        self.parts = [name for name in ("validation", "test") if getattr(dataset, name) is not None]
        if not self.parts:
            raise UsageError(f"{plan.source} holds no example out to choose by: give data with a test part, or --data.validation 0.1")
        if (path / STATE).exists():
            self.state = _read(path)
        else:
            models, left_out = candidates(plan, dataset)
            self.state = {"plan": plan.to_json(), "models": models, "left_out": left_out}
            self._check_share()

    @property
    def share(self) -> float:
        """Minutes of training of one run."""
        return self.plan.minutes / (len(self.state["models"]) * self.plan.seeds)

    def _check_share(self) -> None:
        if 60 * self.share >= LEAST:
            return
        runs = len(self.state["models"]) * self.plan.seeds
        raise UsageError(
            f"{self.plan.minutes:g} minutes for {len(self.state['models'])} models of {self.plan.seeds} seeds are {60 * self.share:.1f} s for "
            f"each run, too few to learn from: give --minutes {runs * LEAST / 60:.2g} or more, or fewer --models or --seeds"
        )

    def run(self) -> list[str]:
        """Trains, measures, chooses, writes the page, and returns the sentences that say what to take."""
        if "sentences" in self.state:
            self.display.say(f"{self.path} is finished")
            return list(self.state["sentences"])
        self.path.mkdir(parents=True, exist_ok=True)
        # Two at once would train the same runs.
        with Run(self.path, {}).lock():
            try:
                return self._run()
            except KeyboardInterrupt as stop:
                raise Stopped(self.path, stop) from stop

    def _run(self) -> list[str]:
        self._save()
        pairs = [(name, seed) for seed in range(self.plan.seeds) for name in self.state["models"]]
        self.display.say(self._announcement(len(pairs)))
        chosen_on = self.parts[0]
        found: list[tuple[Run, Report]] = []
        spent: list[float] = []
        for number, (name, seed) in enumerate(pairs, 1):
            if name in self.state["left_out"]:
                continue
            self.display.say(f"[{number}/{len(pairs)}] {name}, seed {seed}: {self._left(len(pairs) - number + 1, spent)}")
            start = time.monotonic()
            try:
                run = self._train(name, seed)
                trained = time.monotonic()
                found.append((run, compare.measured(run, chosen_on, quiet=self.quiet)))
            except Exception as error:  # the others are worth comparing without it
                self.state["left_out"][name] = f"seed {seed}: {_reason(error)}"
                self._save()
                self.display.warn(f"{name} is left out: {_reason(error)}")
                continue
            spent.append(time.monotonic() - trained + max(0.0, trained - start - 60 * self.share))
        # A model with a seed that failed is no safe choice, whatever its other seeds do.
        found = [(run, report) for run, report in found if run.info["model"] not in self.state["left_out"]]
        if not found:
            raise TrainingError("; ".join(f"{name}: {reason}" for name, reason in self.state["left_out"].items()))
        same_data(*(trained_on(run) for run, _ in found))
        return self._decide(found, chosen_on)

    def _announcement(self, runs: int) -> str:
        names = ", ".join(self.state["models"])
        minutes = self.plan.minutes + runs * EVALUATING / 60
        return (
            f"{self.path}: {names} on {self.plan.source}, {self.plan.seeds} seeds each, {60 * self.share:.0f} s of training a run; "
            f"about {minutes:.0f} min in all, {self.plan.minutes:g} of them training and the others evaluation"
        )

    def _left(self, runs: int, spent: list[float]) -> str:
        """The time that is left, from what the runs so far took besides training."""
        beside = sum(spent) / len(spent) if spent else EVALUATING
        return f"{60 * self.share:.0f} s of training; about {runs * (self.share + beside / 60):.1f} min left"

    def _train(self, name: str, seed: int) -> Run:
        path = self.path / f"{name}-{seed}"
        if not (path / INFO).exists():
            return api.train(
                name, self.plan.source, run=path, data_options=self.plan.options, minutes=self.share, seed=seed, quiet=self.quiet, report=False
            )  # fmt: skip
        run = Run.read(path)
        if run.info["status"] in DONE:
            return Run.open(path)
        if run.info["status"].startswith("failed"):
            raise TrainingError(f"{run.info['status']}; delete {path} to try again")
        return api.go_on(run, quiet=self.quiet, report=False)

    def _decide(self, found: list[tuple[Run, Report]], chosen_on: str) -> list[str]:
        """Chooses, measures what is chosen on the test part, and writes down both."""
        comparison = side_by_side(compare.columns(found))
        choices = advice.choose(comparison)
        # Written down before anything is measured on the test part.
        self.state |= {"choices": [choice.to_json() for choice in choices], chosen_on: comparison.to_json()}
        self._save()
        final = self._final(choices, comparison) if chosen_on != "test" and "test" in self.parts else None
        sentences = [advice.sentences(choice, chosen_on, final) for choice in choices]
        sentences += self._cautions(chosen_on, final)
        self._page(comparison, final, sentences)
        if final is not None:
            self.state["test"] = final.to_json()
        self.state["sentences"] = sentences
        self._save()
        return sentences

    def _final(self, choices: list[Choice], comparison: Comparison) -> Comparison | None:
        """The chosen models on the test part, in the columns of the comparison."""
        taken = {choice.take for choice in choices}
        chosen = [
            dataclasses.replace(
                column,
                members=tuple(
                    dataclasses.replace(m, report=compare.measured(Run.open(m.run), "test", quiet=self.quiet)) for m in column.members
                ),
            )
            for column in comparison.columns
            if column.name in taken
        ]
        return side_by_side(chosen) if chosen else None

    def _cautions(self, chosen_on: str, final: Comparison | None) -> list[str]:
        sentences = []
        if chosen_on != "validation":
            sentences.append(
                f"{self.plan.source} has no validation part, so that the choice was made on the {chosen_on} part itself: its numbers flatter "
                "what was chosen."
            )
        elif final is None:
            sentences.append(
                f"Nothing was measured on a test part, so that the numbers are those of the {chosen_on} part, by which the choice was made: "
                "they flatter what was chosen."
            )
        if self.plan.seeds == 1:
            sentences.append("One seed was trained of each model: another seed may differ by more than these intervals say.")
        return sentences

    # ------------------------------------------------------------------------------------------------- writing

    def _save(self) -> None:
        replace_file(self.path / STATE, json.dumps(self.state, indent=1, ensure_ascii=False).encode())

    def _page(self, comparison: Comparison, final: Comparison | None, sentences: list[str]) -> None:
        before = [f"<h2>What to take</h2>{page.advice(sentences)}"]
        if self.state["left_out"]:
            before.append(f"<h2>Left out</h2>{page.facts(self.state['left_out'].items())}")
        after = [] if final is None else [f"<h2>What was chosen, on the test part</h2>{compare.table(final)}"]
        compare.write(self.path / PAGE, comparison, title=f"Which model for {self.plan.source}?", before=before, after=after)
