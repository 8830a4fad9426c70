"""The run folder: what was trained on what, its metrics and its checkpoints, readable without pofx."""

import contextlib
import dataclasses
import difflib
import itertools
import json
import os
import pathlib
import platform
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import filelock

from pofx import __version__, checkpoint, discovery, distributed
from pofx.core import DataSpec, Model, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pofx.data import Codec, Dataset, Options

INFO, METRICS, SAMPLES = "run.json", "metrics.jsonl", "samples"

#: Images in a picture of samples/.
PICTURED = 64


def hardware() -> dict[str, Any]:
    """The machine and the versions that a run was made with."""
    import torch

    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


#: Trainings that this process has finished.
_trained = itertools.count()


def peak_memory(device: "torch.device") -> int | None:
    """The most memory that this process has held, in bytes: of an accelerator, else resident; None where unknown, as it is
    for a process that has trained before, whose peak may be of that time."""
    import torch

    if next(_trained):
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows keeps no such record
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def versions() -> dict[str, str]:
    """The versions that decide what a run computes."""
    import torch

    return {"pofx": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _lines(path: str) -> list[str]:
    return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if os.path.exists(path) else []


def next_folder(parent: pathlib.Path, stem: str) -> pathlib.Path:
    """parent/stem-NNN with the first number above all that exist."""
    taken = [int(m[1]) for p in parent.glob(f"{stem}-*") if (m := re.fullmatch(re.escape(stem) + r"-(\d{3,})", p.name))]
    return parent / f"{stem}-{max(taken, default=0) + 1:03d}"


@dataclasses.dataclass
class Run:
    """A run folder at one of its checkpoints.

    path: the folder. info: the content of run.json. step: the checkpoint, in moves; None where none is kept yet.
    networks: of one's own, which the model was trained with and is loaded with; files cannot hold them.
    Of several ranks that train one run, the first one writes its folder, and the others only read.
    """

    path: pathlib.Path
    info: dict[str, Any] = dataclasses.field(repr=False)
    step: int | None = None
    networks: "dict[str, nn.Module]" = dataclasses.field(default_factory=dict, repr=False)

    # -- reading ---------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: pathlib.Path) -> "Run":
        """The run in a folder, without choosing a checkpoint. Raises `UsageError` where it is none."""
        if not path.exists():
            beside = [entry.name for entry in path.parent.glob("*/")] if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name.replace("_", "-"), beside, 1, 0.8)
            hint = f"did you mean {path.parent / near[0]}?" if near else "give a run folder that `pofx train` made (see `pofx list runs`)"
            raise UsageError(f"there is no run {path}: {hint}")
        try:
            info = json.loads((path / INFO).read_text(encoding="utf-8"))
            info["model"], info["data"]["source"], info["training"]["seed"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is not a run folder: its {INFO} is missing or unreadable; give a folder that `pofx train` made"
            ) from error
        return cls(path, info)

    @classmethod
    def open(cls, reference: "str | pathlib.Path | Run") -> "Run":
        """RUN, RUN@best, RUN@last or RUN@STEP; a bare RUN is its best checkpoint where the model has a validation
        score, else its last. Raises `UsageError` for what is not there."""
        if isinstance(reference, Run):
            return reference
        name, at, which = str(reference).rpartition("@")
        if not at or pathlib.Path(str(reference)).is_dir():
            name, which = str(reference), ""
        run = cls.read(pathlib.Path(name))
        kept = checkpoint.steps(run.checkpoints)
        if not kept:
            raise UsageError(f"{run.path} has no checkpoint yet: go on with `pofx train --run {run.path} --resume`")
        if which in ("", "best", "last"):
            best = run.info.get("best")
            if which == "best" and best is None:
                raise UsageError(
                    f"{run.path} has no best checkpoint, since {run.info['model']} has no validation score: use {run.path}@last"
                )
            step = kept[-1] if which == "last" or best not in kept else best
        elif which.isdigit() and int(which) in kept:
            step = int(which)
        else:
            raise UsageError(f"{run.path} keeps no checkpoint {which!r}: there are best, last, {', '.join(map(str, kept))}")
        run.step = step
        return run

    @property
    def label(self) -> str:
        """The model's name; one that was made of several trained ones says so."""
        return f"{self.info['model']} (hybrid)" if self.info.get("parts") else str(self.info["model"])

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        assert self.step is not None
        try:
            return checkpoint.read(checkpoint.folder(self.checkpoints, self.step))
        except checkpoint.Damaged as error:
            others = [f"{self.path}@{step}" for step in checkpoint.steps(self.checkpoints) if step != self.step]
            raise UsageError(f"{error}; use {' or '.join(others) or 'a copy of it'} instead") from error

    def model(self, device: str = "cpu", *, cls: type[Model] | None = None, prior: str | None = None) -> Model:
        """The model at this checkpoint: averaged weights, evaluation mode, every byte verified.

        Arguments:
            prior: what it draws its codes from, as `pofx.priors.attach` takes it: by default the prior that was last
                fitted to this checkpoint, else its own.
        """
        from pofx import priors, progress
        from pofx.nn import foreign

        description, tensors = self._read()
        name = description["model"]
        if cls is None and name not in discovery.names("models"):
            raise UsageError(
                f"{self.path} is a run of {name}, which is no model here: have POFX_PATH name the folder of {name}.py, or in Python "
                "give load its class as model="
            )
        cls = cls or discovery.model(name)
        recorded, where = description.get("custom", {}), str(self.path)
        foreign.check(recorded, self.networks, where)
        model = cls(DataSpec.from_json(description["spec"]), cls.Config.from_json(description["config"]), **self.networks)
        foreign.check_same(recorded, model, where)
        try:
            checkpoint.restore(model, tensors[checkpoint.AVERAGE], resizable=model.resizable)
        except checkpoint.Damaged as error:
            # Every byte was verified: it is the model's file that is another one now.
            made = self.info.get("versions", {}).get("pofx", "another version")
            raise UsageError(f"{self.path} was trained with another version of the model (pofx {made}): {error}; train it again") from error
        for sentence in priors.attach(model, self, prior):
            progress.warn(sentence)
        return model.to(device).eval().requires_grad_(False)

    def training_state(self) -> "dict[str, torch.Tensor]":
        """Buffers of the model at this checkpoint that training needs and its weights do not hold, by their names in it."""
        state = self._read()[1][checkpoint.TRAINING]
        return {name.removeprefix("buffer/"): value for name, value in state.items() if name.startswith("buffer/")}

    @property
    def codec(self) -> "Codec":
        """The codec that the run was trained with."""
        from pofx.data import codec_from_json

        return codec_from_json(self._read()[0]["codec"])

    def dataset(
        self,
        source: str | pathlib.Path | None = None,
        options: "Options | None" = None,
        *,
        on_error: Literal["stop", "skip"] | None = None,
    ) -> "Dataset":
        """The run's own data, or another source read with the run's codec; `on_error` in the place of that of the options."""
        from pofx import data

        own = self.info["data"]
        mine = source is None or str(source) in (own["source"], self.source)
        # The run's own data by their name are divided as they were for the training: its test part stays unseen.
        options = options or (data.Options.from_json(own["options"]) if mine else data.Options())
        if on_error is not None and not mine:
            options = dataclasses.replace(options, on_error=on_error)
        return data.load(self.source if source is None else source, options, codec=self.codec)

    @property
    def source(self) -> str:
        """The run's own data: as they were named, or as they were named from the folder in which training began."""
        from pofx import data

        named = str(self.info["data"]["source"])
        there = pathlib.Path(self.info["data"].get("folder", ""), named)
        return str(there) if named not in data.names() and not pathlib.Path(named).exists() and there.exists() else named

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def milestones(self) -> dict[int, str]:
        """Those of the model that were passed up to this checkpoint, with the moves after which samples/ has a picture of them."""
        return {line["step"]: line["milestone"] for line in self.metrics() if "milestone" in line and line["step"] <= (self.step or 0)}

    # -- writing ---------------------------------------------------------------------------------------------

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Makes this process the only writer; the lock ends with the process. Raises `UsageError` where another one writes."""
        if distributed.rank() > 0:
            return contextlib.nullcontext()
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise UsageError(f"{self.path} is in use by another process: wait until it ends, or train into another folder") from error
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error
        return lock

    def update(self, **values: Any) -> None:
        """Changes entries of run.json in one step, and takes over what other processes have changed in it: an evaluation may count a
        look at the data while training goes on."""
        if distributed.rank() > 0:
            self.info.update(values)
            return
        with filelock.FileLock(self.path / ".run.lock"):
            there = json.loads((self.path / INFO).read_text(encoding="utf-8")) if (self.path / INFO).exists() else {}
            self.info.update(there | values)
            checkpoint.replace_file(self.path / INFO, json.dumps(self.info, indent=1).encode())

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines of metrics.jsonl that are newer than the checkpoint from which training goes on."""
        path = self.path / METRICS
        if not path.exists() or distributed.rank() > 0:
            return
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break  # the line that was being written when the process was killed
            if entry["step"] > step:
                break
            kept.append(line + "\n")
        checkpoint.replace_file(path, "".join(kept).encode())

    def log(self, entry: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        if distributed.rank() == 0:
            with (self.path / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def trained_on(run: Run) -> tuple[str, str, str]:
    """A run's folder, and the source and the fingerprint of its data."""
    return str(run.path), run.info["data"]["source"], run.info["data"]["fingerprint"]


def same_data(first: tuple[str, str, str], *others: tuple[str, str, str]) -> None:
    """Raises `UsageError` where one of the others, each as `trained_on` describes it, is of other data than the first, across which
    nothing can be compared."""
    for other in others:
        if other[2] != first[2]:
            here, there = (f"{source} ({fingerprint[:8]})" for _, source, fingerprint in (first, other))
            raise UsageError(
                f"{first[0]} was trained on {here} and {other[0]} on {there}, which differ in content or options: "
                "compare runs on the same data"
            )


def load(
    reference: "str | pathlib.Path | Run",
    *,
    device: str = "cpu",
    model: type[Model] | None = None,
    prior: str | None = None,
    **networks: "nn.Module",
) -> Model:
    """The trained model of RUN, RUN@best, RUN@last or RUN@STEP: averaged weights, evaluation mode.

    Arguments:
        model: the class, where it is not one that pofx finds by its file.
        prior: that `sample` draws codes from, as `Run.model` takes it.
        networks: those of one's own that it was trained with (`encoder=`, `decoder=`), which are left as they are.
    Raises `UsageError` where such a network is missing, or is another one.
    """
    from pofx.nn import foreign

    run = Run.open(reference)
    if networks:
        cls = model or discovery.model(run.info["model"])
        taken, others = foreign.take(cls, run.info["model"], networks)
        if others:
            raise UsageError(f"{next(iter(others))} must be a torch.nn.Module, not {type(next(iter(others.values()))).__name__}")
        run = dataclasses.replace(run, networks=taken)
    return run.model(device, cls=model, prior=prior)
