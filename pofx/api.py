"""`pofx.train`: from a model, data and settings to a run folder, fresh or resumed."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pofx import data as sources
from pofx import discovery, distributed, recovery
from pofx.core import Attributes, Budget, Classifies, Config, DataSpec, Label, Model, Recipe, UsageError, Values, mix
from pofx.nn import foreign
from pofx.run import INFO, Run, hardware, next_folder, peak_memory, versions
from pofx.settings import Settings, pick_device
from pofx.signals import Interrupted
from pofx.trainer import Trainer

if TYPE_CHECKING:
    from torch import nn

    from pofx.data import Dataset, Options

ADADELTA = 0.05
"""Learning rate of adadelta below which a person has most likely not set it."""
FREE = frozenset({"steps", "epochs", "minutes", "device", "tensorboard", "keep", "checkpoint_every", "patience"})
"""Settings that may change when a run is resumed: they say how long and where, not what is computed."""
FEW = 10
"""Training examples below which a warning says that they are few."""
NAMED = 10
"""Labels that a sentence names."""


def check_supported(cls: type[Model], name: str, spec: DataSpec) -> None:
    """Raises `UsageError` where the model cannot model this kind of data, naming what it supports and who can."""
    if spec.kind in cls.kinds:
        return
    able = [other for other in discovery.names("models") if spec.kind in discovery.model(other).kinds]
    others = f"models of {spec.kind}: {', '.join(able)}" if able else f"no model takes {spec.kind} yet"
    raise UsageError(f"{name} models {' and '.join(sorted(cls.kinds))}, not {spec.kind}; {others}")


def recipe(cls: type[Model], name: str, spec: DataSpec, budget: Budget | None) -> Recipe:
    """The model's defaults for this data, after checking that it can model it; few examples make a small batch."""
    check_supported(cls, name, spec)
    chosen = cls.recipe(spec, budget)
    return dataclasses.replace(chosen, batch_size=max(1, min(chosen.batch_size, spec.size)))


def complete(settings: Settings, chosen: Recipe) -> Settings:
    """Settings in which the recipe has filled in what nobody gave."""
    budget = {} if settings.budget else {k: v for k, v in chosen.budget.to_json().items() if v is not None}
    return dataclasses.replace(
        settings,
        batch_size=settings.batch_size or chosen.batch_size,
        ema=chosen.ema if settings.ema is None else settings.ema,
        **budget,
    )


def stem(source: str) -> str:
    """A short name of a data source for a folder's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", pathlib.Path(source).name.split(".")[0]).strip("-").lower() or "data"


def create(path: pathlib.Path, name: str, model: Model, dataset: "Dataset", settings: Settings) -> Run:
    """A new run folder, into which nothing is written yet. Raises `UsageError` where there is something already."""
    if distributed.rank() == 0:
        _make(path)
    distributed.barrier()
    return Run(
        path,
        {
            "model": name,
            "config": model.config.to_json(),
            "custom": foreign.custom(model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "data": {
                "source": dataset.source,
                "folder": os.getcwd(),
                "options": dict(dataset.options),
                "fingerprint": dataset.fingerprint,
                "spec": dataset.spec.to_json(),
            },
            "training": settings.to_json(),
            "seed": settings.seed,
            "exact": settings.minutes is None,
            "versions": versions(),
            "hardware": hardware(),
            "status": "new",
            "best": None,
            "last": None,
        },
    )


def _make(path: pathlib.Path) -> None:
    if (path / INFO).exists() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise UsageError(f"{path} exists already: continue it with --resume, or choose another --run")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror or error}") from error


def build(cls: type[Model], spec: DataSpec, config: Config, seed: int, networks: "Mapping[str, nn.Module] | None" = None) -> Model:
    """A freshly initialised model, ready to be trained; equal seeds give equal weights. `networks` of one's own keep theirs."""
    import torch

    if getattr(config, "conditional", False) and spec.label is None:
        raise UsageError("a conditional model needs labels, and these data have none: name a --data.label or leave conditional out")
    foreign.check_trainable(networks or {})
    torch.manual_seed(mix(seed, "initial weights"))
    return cls(spec, config, **(networks or {}))


def check_varied(dataset: "Dataset") -> None:
    """Raises `UsageError` where all training examples are equal."""
    if dataset.train.constant:
        what = "symbols" if dataset.train.tokens else "examples"
        raise UsageError(
            f"all {len(dataset.train):,} training {what} of {dataset.source} are equal, so that there is nothing to learn: give others"
        )


def train(
    model: str | type[Model],
    data: "str | pathlib.Path | Dataset" = "digits",
    *,
    run: str | pathlib.Path | None = None,
    resume: bool = False,
    data_options: "Options | None" = None,
    model_config: Config | None = None,
    quiet: bool = False,
    report: bool = True,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    accumulate: int = 1,
    precision: str = "auto",
    device: str = "auto",
    checkpoint_every: str | int = "2min",
    keep: int = 3,
    patience: int | None = None,
    ema: float | None = None,
    monitor: bool = True,
    tensorboard: bool = False,
    **config: Any,
) -> Run:
    """Trains `model` on `data` and returns the run, which is saved in `run` (by default runs/MODEL-DATA-NNN).

    Arguments:
        model: a name (see `pofx list models`) or a class of your own.
        data: a built-in name, a path, or a data set from `pofx.data.load`.
        resume: go on with `run` from its newest sound checkpoint; its own model, data and settings then hold.
        config: fields of the model's config, which the model's recipe fills in where they are left out; and networks of one's
            own where the model takes them (`encoder=`, `decoder=`), which are left as they are: the model trains a copy.
    Raises `UsageError` for what cannot be done, `TrainingError` where training cannot go on, and `Interrupted` after a
    signal; what was saved before stays.
    """
    from pofx.data import Options

    settings = Settings(
        steps=steps, epochs=epochs, minutes=minutes, seed=seed, batch_size=batch_size, accumulate=accumulate,
        precision=precision, device=device, checkpoint_every=str(checkpoint_every), keep=keep, patience=patience,
        ema=ema, monitor=monitor, tensorboard=tensorboard,
    )  # fmt: skip
    cls = discovery.model(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else cls.__name__.lower()
    if resume:
        if run is None:
            raise UsageError("resume needs the run: give its folder")
        networks, _ = foreign.take(cls, name, config)
        found = dataclasses.replace(Run.read(pathlib.Path(run)), networks=networks)
        return go_on(found, settings.budget, cls=cls, quiet=quiet, report=report)
    networks, config = foreign.take(cls, name, config)
    options = data_options or Options()
    dataset = sources.load(data, options) if isinstance(data, (str, pathlib.Path)) else data
    chosen = recipe(cls, name, dataset.spec, settings.budget)
    if model_config is None:
        model_config = type(chosen.config).from_json(_override(chosen.config, config))
    return start(cls, name, dataset, complete(settings, chosen), model_config, networks=networks, run=run, quiet=quiet, report=report)


def _override(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON with fields replaced; a nested config takes a mapping of its own fields or another config."""
    values = config.to_json()
    for name, value in changes.items():
        if isinstance(value, Config):
            value = value.to_json()
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) and isinstance(value, Mapping) else value
    return values


def start(
    cls: type[Model],
    name: str,
    dataset: "Dataset",
    settings: Settings,
    config: Config,
    *,
    networks: "dict[str, nn.Module] | None" = None,
    run: str | pathlib.Path | None = None,
    quiet: bool = False,
    report: bool = True,
) -> Run:
    """A fresh run: settings complete, config given."""
    check_varied(dataset)
    check_supported(cls, name, dataset.spec)
    distributed.start(pick_device(settings.device))
    built = build(cls, dataset.spec, config, settings.seed, networks)
    free = run if run is not None else next_folder(pathlib.Path("runs"), f"{name.replace('_', '-')}-{stem(dataset.source)}")
    path = pathlib.Path(distributed.first_text(str(free)))
    made = dataclasses.replace(create(path, name, built, dataset, settings), networks=networks or {})
    trainer = _trainer(built, dataset, settings, made, quiet)
    trainer.display.say(f"{made.path}: {name} with {made.info['parameters']:,} parameters on {dataset.source} ({describe(dataset)})")
    if any(player.optimizer.name == "adadelta" and player.optimizer.lr < ADADELTA for player in built.players()):
        trainer.display.warn(
            "adadelta finds its steps itself and its learning rate is a factor on them, 1 as a rule: with less than "
            f"{ADADELTA} it learns next to nothing; give --model.optimizer.lr 1"
        )
    for note in (*dataset.notes, *built.notes):
        trainer.display.say(note)
    if not dataset.train.tokens and (n := len(dataset.train)) < FEW:
        trainer.display.warn(f"from {n} training example{'s' * (n > 1)} a model can learn little but to repeat {'them' if n > 1 else 'it'}")
    used = getattr(config, "conditional", False) or Classifies in built.capabilities
    if dataset.spec.label is not None and used:
        trainer.display.say(f"labels are {meaning(dataset.spec.label)}")
    elif dict(dataset.options).get("label") is not None:
        trainer.display.say("the label is not modelled: P(x) is learned, not P(x|label)")
    with made.lock():
        # The first thing written, so that a folder without it is nobody's run.
        made.update(status="training")
        return _run(trainer, made, report)


def _trainer(model: Model, dataset: "Dataset", settings: Settings, run: Run, quiet: bool) -> Trainer:
    if len(dataset.train) == 0:
        raise UsageError(f"{dataset.source} has no training examples: use a smaller --data.validation or more data")
    try:
        return Trainer(model, dataset, settings, run=run, quiet=quiet)
    except BaseException:
        # Nothing was written yet: do not leave an empty folder behind.
        if run.info["status"] == "new" and run.path.is_dir() and not any(run.path.iterdir()):
            run.path.rmdir()
        raise


def describe(dataset: "Dataset") -> str:
    """A data set in a few words."""
    spec, n = dataset.spec, len(dataset.train)
    shape = "x".join(map(str, spec.shape))
    shapes = {"tokens": f", {spec.vocabulary} symbols", "vectors": f" of {shape} numbers"}
    return f"{n:,} training {spec.kind if n != 1 else spec.kind.removesuffix('s')}{shapes.get(spec.kind, f', {shape}')}"


def meaning(label: Label) -> str:
    """What labels are, in a few words."""
    names = ", ".join(label.names[:NAMED]) + (", ..." if len(label.names) > NAMED else "")
    if isinstance(label, Values):
        return f"values, any number each: {names}"
    of = "attributes, 0 or 1 each" if isinstance(label, Attributes) else "classes"
    return f"{len(label.names):,} {of}: {names}"


def go_on(
    run: Run, budget: Budget | None = None, *, cls: type[Model] | None = None, quiet: bool = False, report: bool = True, **free: Any
) -> Run:
    """Resumes a run; `budget` and the settings in `FREE` may differ from those that it was started with."""
    info = run.info
    settings = Settings.from_json(info["training"])
    if budget is not None:
        settings = dataclasses.replace(settings, **budget.to_json())
    settings = dataclasses.replace(settings, **free)
    cls = cls or discovery.model(info["model"])
    dataset = sources.load(run.source, sources.Options.from_json(info["data"]["options"]))
    if dataset.fingerprint != info["data"]["fingerprint"]:
        raise UsageError(
            f"{info['data']['source']} is not what {run.path} was trained on: its content has changed; put the old data back or start a new run"
        )
    distributed.start(pick_device(settings.device))
    recorded, where = info.get("custom", {}), str(run.path)
    foreign.check(recorded, run.networks, where)
    model = build(cls, dataset.spec, cls.Config.from_json(info["config"]), settings.seed, run.networks)
    foreign.check_same(recorded, model, where)
    with run.lock():
        trainer = _trainer(model, dataset, settings, run, quiet)
        step = recovery.resume(trainer)
        if trainer.progress >= 1.0 or (info["status"] == "stopped early" and budget is None):
            trainer.display.say(f"{run.path} is finished: {step} moves are done; {_larger(settings, trainer)} would continue it")
            return _opened(run)
        trainer.display.say(f"{run.path}: going on from move {step}")
        run.update(status="training", training=settings.to_json(), exact=info["exact"] and settings.minutes is None)
        return _run(trainer, run, report)


def _larger(settings: Settings, trainer: Trainer) -> str:
    """What a budget would have to exceed to go on."""
    if settings.minutes is not None:
        return f"more than --minutes {math.ceil(trainer.seconds / 6) / 10:g}, which it has used,"
    unit, value = ("epochs", settings.epochs) if settings.epochs is not None else ("steps", settings.steps)
    return "a larger budget" if value is None else f"more than --{unit} {value:g}"


def _run(trainer: Trainer, run: Run, report: bool) -> Run:
    try:
        status = trainer.train()
    except Interrupted:
        raise
    except BaseException as error:
        run.update(status=f"failed: {error}")
        raise
    if trainer.rank == 0:
        run.update(status=status, seconds=round(trainer.seconds, 3), examples=trainer.examples, peak_memory=peak_memory(trainer.device))
        if report and run.info["last"] is not None:
            from pofx import examples
            from pofx import report as page

            trainer.display.say("drawing the report")
            written = page.write(_opened(run))
            for name, sentence in run.info.get("symptoms", {}).items():
                trainer.display.say(f"it ends with {name}: {sentence}")
            held = examples.held_out(trainer.dataset)[0] != "train"
            further = (
                f"pofx evaluate {run.path} measures it on data that training never saw" if held else "nothing is held out to measure it on"
            )
            trainer.display.say(f"{written} shows what was trained; {further}")
    distributed.barrier()
    return _opened(run)


def _opened(run: Run) -> Run:
    """The run at its best checkpoint, with the networks of one's own that it was trained with."""
    return dataclasses.replace(Run.open(run.path), networks=run.networks)
