"""Trains a model on data: pofx train MODEL --data SOURCE."""

import dataclasses
import json
import pathlib
from typing import Any

from pofx import api, discovery
from pofx import data as sources
from pofx.cli import booleans, parse
from pofx.core import Config, Model, UsageError
from pofx.nn import foreign
from pofx.processor import flushed_subnormals
from pofx.run import Run
from pofx.settings import Settings

BUDGETS = ("steps", "epochs", "minutes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Trains a model on data and saves the run. Defaults of --model.FIELD are those of its class; where they are not given, its recipe
    chooses for your data and your budget."""

    source: str = "digits"
    """A built-in name (see `pofx list data`) or a path: a folder of images, .npy, .npz, IDX, .csv, .parquet, .txt."""
    run: str | None = None
    """Folder of the run; by default runs/MODEL-DATA-NNN."""
    resume: bool = False
    """Continue the run of --run from its newest sound checkpoint."""
    config: str | None = None
    """A run.json whose model, data and settings are the defaults here."""
    quiet: bool = False
    """No progress."""
    data: sources.Options = dataclasses.field(default_factory=sources.Options)


def _arguments(cls: type[Model], model: Config, base: "Options | None" = None) -> tuple[type, Any]:
    """The flags of this verb with those of one model, and their defaults."""
    made = dataclasses.make_dataclass("Train", [("model", cls.Config)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    given = {f.name: getattr(base, f.name) for f in dataclasses.fields(Options)} if base is not None else {}
    return made, made(model=model, **given)


def _settings(options: Any) -> Settings:
    return Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)})


def _parse(cls: type[Model], arguments: list[str], model: Config, base: "Options | None" = None) -> Any:
    made, default = _arguments(cls, model, base)
    return parse(made, arguments, verb="train MODEL", default=default)


def _value(arguments: list[str], flag: str) -> str | None:
    """The value of a flag that decides what the other flags are."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


@flushed_subnormals()
def main(arguments: list[str]) -> int:
    """Runs the verb."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    flags = arguments[1:] if name else arguments
    if "--resume" in flags:
        return _resume(name, flags)
    stored = _read_config(_value(flags, "--config"))
    name = name or (stored["model"] if stored else None)
    if name is None:
        if {"-h", "--help"} & set(flags):
            print(
                f"usage: pofx train MODEL [flags]; pofx train MODEL --help tells the flags; models: {', '.join(discovery.names('models'))}"
            )
            return 0
        raise UsageError(f"name a model: pofx train MODEL, where MODEL is one of {', '.join(discovery.names('models'))}")
    if name not in discovery.names("models") and (name in sources.names() or pathlib.Path(name).exists()):
        raise UsageError(f"{name} are data: pofx train MODEL --data {name}, where MODEL is one of {', '.join(discovery.names('models'))}")
    cls = discovery.model(name)
    base = _without_budget(Options.from_json(_stored(stored)), flags) if stored else None
    model = cls.Config.from_json(stored["config"]) if stored and stored["model"] == name else None
    # First with stand-in defaults, so that a mistyped flag is told before data are read; then with the recipe's.
    options = _parse(cls, flags, model or cls.Config(), base)
    dataset = sources.load(options.source, options.data)
    settings = _settings(options)
    chosen = api.recipe(cls, name, dataset.spec, settings.budget)
    options = _parse(cls, flags, model or chosen.config, base)
    run = api.start(cls, name, dataset, api.complete(settings, chosen), options.model, run=options.run, quiet=options.quiet)
    print(run.path)
    return 0


def _without_budget(options: Options, flags: list[str]) -> Options:
    """The stored options; a budget among the flags takes the place of theirs, whatever its kind."""
    given = any(_value(flags, f"--{budget}") is not None for budget in BUDGETS)
    return dataclasses.replace(options, **dict.fromkeys(BUDGETS)) if given else options


def _read_config(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    if not pathlib.Path(path).exists():
        raise UsageError(f"--config {path} does not exist: give the run.json of a run")
    run = Run.read(pathlib.Path(path).parent if path.endswith(".json") else pathlib.Path(path))
    foreign.check(run.info.get("custom", {}), {}, str(run.path))
    return run.info


def _stored(info: dict[str, Any]) -> dict[str, Any]:
    return {**info["training"], "source": info["data"]["source"], "data": info["data"]["options"]}


def _resume(name: str | None, flags: list[str]) -> int:
    path = _value(flags, "--run")
    if path is None:
        raise UsageError("--resume needs --run RUN, the folder of the run to continue")
    if name is not None:
        discovery.model(name)  # an unknown name is told before anything else
    folder = pathlib.Path(path)
    if not (folder / "run.json").exists() and (not folder.exists() or (folder.is_dir() and _empty(folder))):
        if name is None:
            raise UsageError(f"there is no run {folder} yet, so --resume needs the MODEL to start it with")
        given = booleans(Options, flags)
        at = given.index("--resume")
        return main([name, *given[:at], *given[at + 2 :]])
    run = Run.read(folder)
    if name is not None and name != run.info["model"]:
        raise UsageError(f"{path} is a run of {run.info['model']}, not of {name}: leave MODEL out, or train into another folder")
    cls = discovery.model(run.info["model"])
    before = Options.from_json({**_stored(run.info), "run": path})
    config = cls.Config.from_json(run.info["config"])
    options = _parse(cls, flags, config, _without_budget(before, flags))
    given = {b: getattr(options, b) for b in BUDGETS if _value(flags, f"--{b}") is not None}
    for field in dataclasses.fields(Options):
        if field.name not in api.FREE | {"data", "run", "resume", "config", "quiet"}:
            _same(
                f"--{field.name.replace('_', '-')}".replace("--source", "--data"),
                getattr(before, field.name),
                getattr(options, field.name),
                path,
            )
    _same_config("--data", before.data, options.data, path)
    _same_config("--model", config, options.model, path)
    budget = api.Budget(**given) if given else None
    free = {key: getattr(options, key) for key in api.FREE - set(BUDGETS)}
    print(api.go_on(run, budget, cls=cls, quiet=options.quiet, **free).path)
    return 0


def _empty(folder: pathlib.Path) -> bool:
    return all(entry.name == ".lock" for entry in folder.iterdir())


def _same(flag: str, before: Any, now: Any, path: str) -> None:
    if before != now:
        raise UsageError(f"{flag} {now} differs from the {before} that {path} was started with: leave it out, or start a new run")


def _same_config(prefix: str, before: Config, now: Config, path: str) -> None:
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(now, field.name)
        flag = f"{prefix}.{field.name.replace('_', '-')}"
        if isinstance(old, Config):
            _same_config(flag, old, new, path)
        else:
            _same(flag, json.loads(json.dumps(old)), json.loads(json.dumps(new)), path)
