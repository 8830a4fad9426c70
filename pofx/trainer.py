"""The loop: walk the list of players; freeze everybody else, evaluate this player's loss, step its optimizer.

A *move* is one update by one player on its own fresh batch, a *round* one walk of the list. Everything that happens is a
function of (seed, player, move), so a killed run continues bit for bit from its last checkpoint.
"""

import dataclasses
import importlib.util
import itertools
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from pofx import checkpoint, distributed, optim, recovery
from pofx.averaging import Average
from pofx.clock import Clock
from pofx.core import Loss, Model, Noise, Player, Samples, UsageError, mix, precision
from pofx.guard import Diverged, Guard
from pofx.monitor import Monitor
from pofx.processor import flushed_subnormals, keep_freed_memory
from pofx.progress import Display
from pofx.run import PICTURED, SAMPLES, Run
from pofx.settings import Settings, pick_device, pick_precision
from pofx.signals import Interrupted, Stop
from pofx.stream import Stream
from pofx.vitals import Vitals

if TYPE_CHECKING:
    from pofx.data import Dataset

VALIDATIONS, PICTURES, LINES, LOOKS = 20, 10, 1000, 40
"""Evenly spaced over the budget: validations, sample pictures, lines of metrics.jsonl, looks of the monitor at a game."""
READ, LEAST, MOST = 0.5, 200, 4096
"""Held-out examples that a validation reads, as a share of those trained on between two of them: as a forward pass is about a third of a
move, validations take about a sixth of the training's time; but no fewer and no more than so many."""
CHECK_EVERY = 50
"""Moves between looks at whether everything is finite, on accelerators, where each look waits for the device."""
PHASE = 50
"""Places of a round, if it is long, between two at which a line of metrics.jsonl may stand before its end."""


class Trainer:
    """Trains one model on one data set; knows players, and nothing of what they are.

    Arguments:
        model: freshly built; moved to the device and, for convolutions, to channels_last.
        settings: the trainer's settings, in which batch_size, ema and one budget are given.
        run: the folder to save to; None trains in memory only.
    """

    def __init__(self, model: Model, dataset: "Dataset", settings: Settings, *, run: Run | None = None, quiet: bool = True) -> None:
        assert settings.batch_size is not None
        assert settings.ema is not None
        assert settings.budget is not None
        self.settings, self.dataset, self.run = settings, dataset, run
        self.device = pick_device(settings.device)
        self.dtype = pick_precision(settings.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        distributed.start(self.device)
        self.rank, self.ranks = distributed.rank(), distributed.size()
        self.model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.players = model.players()
        self.ema = Average(self.model, self.players, decay=settings.ema)
        self.average = self.ema.model
        self.budget = settings.budget
        self.clock = Clock(moves={player.name: 0 for player in self.players} or {"fit": 0})
        self.display = Display(quiet=quiet or self.rank > 0)
        self._tensorboard = self._open_tensorboard()

        if settings.patience is not None and (self.average.validation is None or not dataset.validation):
            what = "model has no validation score" if self.average.validation is None else "data have no validation part"
            raise UsageError(f"--patience waits for a better validation score, and this {what}: leave it out")

        self.parameters = [[parameter for _, parameter in player.parameters()] for player in self.players]
        self.optimizers = [optim.build(player) for player in self.players]
        self.streams = [
            Stream(dataset.train, name=player.name, size=settings.batch_size, window=model.window, seed=settings.seed, order=model.order)
            for player in self.players
        ]
        self.walk = list(itertools.chain.from_iterable([i] * self._moves_in_round(player) for i, player in enumerate(self.players)))
        self.rounds = self._rounds()
        self.milestones = dict(model.milestones)
        self._looked = 0.0
        self._free: int | None = None
        self._latest: dict[str, tuple[str, Loss]] = {}
        self.guard = Guard(self.model, run)
        watched = (self.model, self.average, self.players, dataset)
        self.vitals = Vitals.of(*watched, size=settings.batch_size, seed=settings.seed) if settings.monitor else None
        self.monitor = Monitor(self, dataset.validation or dataset.train)
        self._stop = Stop(self.display, active=run is not None)
        self._since: float | None = None
        self._agreed = 0.0
        self._saved_at = 0.0

    # -- the clock -------------------------------------------------------------------------------------------

    def _passes(self, passes: float) -> int:
        return math.ceil(passes * self.streams[0].count / (self.settings.batch_size or 1))

    def _moves_in_round(self, player: Player) -> int:
        return player.steps if isinstance(player.steps, int) else self._passes(player.steps.passes)

    def _rounds(self) -> int | None:
        """Rounds of the whole budget, for a model without players batches; None where the clock on the wall decides."""
        if not self.players:
            whole = self._batches_of_a_pass()
            return min(whole, self.budget.steps or math.ceil((self.budget.epochs or 1.0) * whole))
        if self.budget.minutes is not None:
            return None
        if self.budget.steps is not None:
            return self.budget.steps
        assert self.budget.epochs is not None
        return max(1, math.ceil(self._passes(self.budget.epochs) / self._moves_in_round(self.players[0])))

    def _batches_of_a_pass(self) -> int:
        """Batches of one ordered pass; the last, shorter window of a text is one of its own."""
        split, window = self.dataset.train, self.model.window
        count, rest = divmod(len(split), window) if split.tokens and window else (len(split), 0)
        return math.ceil(count / (self.settings.batch_size or 1)) + bool(rest)

    @property
    def seconds(self) -> float:
        """Seconds of training so far; validations, pictures and saves do not count."""
        return self.clock.seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def _pause(self) -> None:
        self.clock.seconds, self._since = self.seconds, None

    def _go_on(self) -> None:
        self._since = time.perf_counter()

    @property
    def progress(self) -> float:
        """The share of the budget that is done, in [0, 1]."""
        if self.rounds is None:
            assert self.budget.minutes is not None
            return min(1.0, (self.seconds if self.ranks == 1 else self._agreed) / (60.0 * self.budget.minutes))
        return min(1.0, (self.clock.round + self.clock.position / max(1, len(self.walk))) / self.rounds)

    @property
    def examples(self) -> int:
        """Examples that the first player has drawn."""
        return next(iter(self.clock.moves.values())) * (self.settings.batch_size or 0)

    # -- one move --------------------------------------------------------------------------------------------

    def _freeze_all_but(self, index: int) -> None:
        """Law 1: while a player moves, nobody else's parameters require gradients."""
        if self._free == index:
            return
        self.model.requires_grad_(False)
        for parameter in self.parameters[index]:
            parameter.requires_grad_(True)
        self._free = index

    def _seed(self, *parts: int | str) -> None:
        seed = mix(self.settings.seed, *parts)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def move(self, index: int, progress: float) -> None:
        """One update of the player at `index`, on its own fresh batch."""
        player, parameters, j = self.players[index], self.parameters[index], self.clock.moves[self.players[index].name]
        self.model.progress.fill_(progress)
        self._freeze_all_but(index)
        self._seed(player.name, j, self.rank)
        batch = self.streams[index].batch(j, device=str(self.device), rank=self.rank, ranks=self.ranks)
        for parameter in parameters:
            parameter.grad = None
        parts = self.settings.accumulate
        chunks = (itertools.repeat(None) if value is None else value.chunk(parts) for value in batch)
        for part in itertools.starmap(type(batch), zip(*chunks, strict=False)):
            loss = player.loss(part)
            total = loss.total
            (total if parts == 1 else total * (len(part.x) / len(batch.x))).backward()  # type: ignore[no-untyped-call]
            self.guard.loss(player.name, loss, total, self.clock.step + 1)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        distributed.average(gradients)
        norm = optim.norm(gradients)
        self.guard.gradient(player.name, norm, self.clock.step + 1)
        if self.vitals is not None:
            self.vitals.gradient(index, j, norm)
        if player.optimizer.clip is not None:
            optim.clip(gradients, norm, player.optimizer.clip)
        start, stop = player.span
        ramp = optim.ramp(player.optimizer, (progress - start) / (stop - start))
        optim.set_learning_rate(self.optimizers[index], self.clock.factor * ramp)
        for optimizer in self.optimizers[index]:
            optimizer.step()
        self.clock.moves[player.name] = j + 1
        self.ema.update(index, j)
        self._latest[player.name] = (player.name, loss)

    def _end_spans(self, progress: float) -> None:
        """When a player's span ends, its averaged weights become its weights."""
        for index, player in enumerate(self.players):
            if player.span[1] < 1.0 and progress >= player.span[1] and player.name not in self.clock.ended:
                self.ema.adopt(index)
                self.clock.ended.append(player.name)

    # -- the loop --------------------------------------------------------------------------------------------

    def train(self) -> Literal["finished", "stopped early"]:
        """Walks until the budget is used. Raises `TrainingError` where it diverges and cannot go back, `Interrupted` after a
        signal; whatever happens, what was saved stays."""
        with self._stop, self.display, precision(self.dtype), flushed_subnormals():
            self._saved_at = self.clock.seconds
            self._go_on()
            self._agree_on_time()
            stopped = self._play() if self.players else self._fit()
            self._save()
            self._picture()
            self.display.update(1.0, self._numbers(), self.seconds, self.examples)
        return "stopped early" if stopped else "finished"

    def _play(self) -> bool:
        """Walks, from an earlier checkpoint where training diverges. True if it stopped early."""
        while True:
            try:
                stopped = self._walk()
                # Whatever the last marks were, the end is looked at, validated and drawn, unless it just was.
                self.monitor.watch(last=True)
                self._pause()
                self._check()
                self.monitor.look()
                self._validate()
                return stopped
            except Diverged as error:
                self._pause()
                recovery.roll_back(self, error)
                self.monitor.tell()
                self._go_on()

    def _check(self) -> None:
        """Raises `Diverged` where what is now should not be kept."""
        self.guard.check(self.clock.step)
        self.monitor.check()

    def _walk(self) -> bool:
        marks, self._looked = self._marks(), self.progress
        # One reading of the clock a turn: it goes on while we look.
        while (progress := self.progress) < 1.0:
            if self.clock.position == 0 and self.players and not any(self._takes_part(i, progress) for i in self.walk):
                raise UsageError("no player moves at this point of the budget: the spans of the players leave a gap")
            self._agree_on_time()
            # Before whoever comes next moves: a span need not end with a move of its player.
            self._end_spans(progress)
            index = self.walk[self.clock.position]
            moves = self._takes_part(index, progress)
            if moves:
                self.move(index, progress)
                self.clock.step += 1
            self.clock.position += 1
            if self.clock.position == len(self.walk):
                self.clock.round, self.clock.position = self.clock.round + 1, 0
            if moves and self._after_move(marks):
                return True
        return False

    def _takes_part(self, index: int, progress: float) -> bool:
        """Whether the span of a player has begun, and is not over."""
        start, stop = self.players[index].span
        return start <= progress < stop

    def _agree_on_time(self) -> None:
        """Where the clock on the wall decides, every rank goes by the first one's."""
        if self.ranks > 1 and self.rounds is None:
            self._agreed = distributed.first(self.seconds)

    def _marks(self) -> dict[int, int]:
        return {parts: int(self.progress * parts) for parts in (VALIDATIONS, PICTURES, LOOKS)}

    def _passed(self, marks: dict[int, int], parts: int) -> bool:
        """Whether another of `parts` equal shares of the budget is done since the last time."""
        now = int(self.progress * parts)
        passed = now > marks[parts]
        marks[parts] = now
        return passed

    def _reached(self) -> list[str]:
        """The model's milestones that were passed since the last time."""
        since, self._looked = self._looked, self.progress
        return [name for name, point in self.milestones.items() if since < point <= self._looked]

    def _after_move(self, marks: dict[int, int]) -> bool:
        """Between two moves: log, validate, draw, save, stop. True to stop early."""
        if self.clock.step % CHECK_EVERY == 0:
            self.guard.check(self.clock.step)
        if self._line_is_due():
            self._log()
        if self.progress < 1.0:
            if self._passed(marks, LOOKS):
                self.monitor.watch()
            if self._passed(marks, VALIDATIONS):
                self._pause()
                self._check()
                self.monitor.look()
                if self._validate():
                    return True
                self._go_on()
            reached = self._reached()
            if self._passed(marks, PICTURES) or reached:
                self._pause()
                self._picture()
                if reached:
                    self.write({"milestone": reached[-1]})
                self._go_on()
        if self.progress < 1.0 or self._stop.number:
            self._save_if_due()
        return False

    def _line_is_due(self) -> bool:
        """Whether another share of the budget has passed since the last line, and one may stand here: where nobody moves any more in
        this round, and now and then within a phase of many moves."""
        progress, position = self.progress, self.clock.position
        due = int(progress * LINES)
        if due == self.clock.line or (position % PHASE and any(self._takes_part(i, progress) for i in self.walk[position:])):
            return False
        self.clock.line = due
        return True

    def _save_if_due(self) -> None:
        moves, seconds = self.settings.interval
        due = self.clock.step % moves == 0 if moves else self.seconds - self._saved_at >= (seconds or math.inf)
        if self.ranks > 1:
            due = bool(distributed.agree(int(due)))
        stop = distributed.agree(self._stop.number or 0)
        if due or stop:
            self._pause()
            self._check()
            self._save()
            if stop:
                assert self.run is not None
                self.run.update(status="interrupted")
                raise Interrupted(stop, self.run.path)
            self._go_on()

    def _fit(self) -> bool:
        """One ordered pass for a model without players, as far as the budget reaches; a checkpoint remembers how many batches
        it has taken in. False: it never stops early."""
        split, size, done = self.dataset.train, self.settings.batch_size or 1, self.clock.moves["fit"]

        def batches() -> Iterator[Any]:
            in_order = split.batches(size, window=self.model.window, device=self.device)
            for number, batch in enumerate(itertools.islice(in_order, self.rounds)):
                if number < done:
                    continue
                yield batch  # when the model asks for the next one, it has taken this one in
                self.clock.moves["fit"] = self.clock.step = self.clock.round = number + 1
                self.model.progress.fill_(self.progress)
                self.display.update(self.progress, {}, self.seconds, self.examples)
                self._save_if_due()
                if self.budget.minutes is not None and self.seconds >= 60.0 * self.budget.minutes:
                    return

        self.model.fit(batches())
        self.model.eval().progress.fill_(1.0)
        self._pause()
        self._validate()
        return False

    # -- what happens between moves --------------------------------------------------------------------------

    def _numbers(self) -> dict[str, float]:
        values = dict(self.clock.numbers)
        for name, loss in self._latest.values():
            terms = {**loss.terms, **loss.metrics}
            if len(loss.terms) > 1:
                terms["total"] = loss.total
            values |= {f"{name}/{term}": float(value.detach()) for term, value in terms.items()}
        return values

    def forget(self) -> None:
        """Drops the numbers of the moves since the last line."""
        self._latest.clear()
        self.clock.numbers = {}

    def _log(self) -> None:
        values, seconds = self._numbers(), self.seconds
        self.write(values)
        if self.progress < 1.0:  # the last line is shown after the last validation
            self.display.update(self.progress, values, seconds, self.examples)
            self.forget()

    def write(self, values: dict[str, Any]) -> None:
        """Values at this moment, into metrics.jsonl and TensorBoard; the latter has numbers only."""
        now = {"step": self.clock.step, "examples": self.examples, "seconds": round(self.seconds, 3)}
        if self.run is not None:
            self.run.log(now | values)
        if self._tensorboard is not None:
            for name, value in (now | values).items():
                if name != "step" and isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(name, value, self.clock.step)

    def _open_tensorboard(self) -> Any:
        if not self.settings.tensorboard or self.run is None or self.rank > 0:
            return None
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError('--tensorboard true needs TensorBoard: pip install "pofx[track]"')
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.run.path / "tensorboard"))

    def _validate(self) -> bool:
        """Scores the averaged weights on held-out data; saves where they are the best so far. True if patience is out."""
        name, split = self.average.validation, self.dataset.validation
        if name is None or split is None or len(split) == 0:
            return False
        self.average.progress.fill_(1.0)
        total, count = 0.0, 0
        with torch.no_grad():
            for number, batch in enumerate(split.spread(self.affordable(), 256, window=self.average.window, device=self.device)):
                self._seed("validation", number)
                weight = batch.x.numel() if self.dataset.spec.kind == "tokens" else len(batch.x)
                total += float(self.average.validate(batch)) * weight
                count += weight
        self.average.progress.copy_(self.model.progress)
        score = total / count
        self.write({"validation/score": score})
        self.display.note(validation=score)
        if math.isfinite(score) and (self.clock.best is None or score < self.clock.best):
            self.clock.best, self.clock.best_step, self.clock.stale = score, self.clock.step, 0
            self._save()
        elif all(player.span[0] <= self.progress for player in self.players):
            # While a player waits for its span (a prior over finished codes), the best may be yet to come.
            self.clock.stale += 1
        return self.settings.patience is not None and self.clock.stale >= self.settings.patience

    def affordable(self) -> int:
        """Held-out examples that a validation reads: chosen at the first one from how fast training is, in examples of its budget, so
        that exact budgets give equal numbers; then the same for all, so that their scores compare."""
        if self.clock.validated is None:
            # A model without players is validated once.
            between = self.examples / (self.progress * VALIDATIONS) if self.players else math.inf
            self.clock.validated = round(min(MOST, max(LEAST, READ * between)))
        return self.clock.validated

    def _picture(self) -> None:
        """A few samples of the averaged weights, in the data's own units, into samples/."""
        if self.run is None or self.rank > 0 or Samples not in self.average.capabilities:
            return
        kind, codec = self.dataset.spec.kind, self.dataset.codec
        ending, n = {"images": (".png", PICTURED), "tokens": (".txt", 2), "sequences": (".npz", 64)}.get(kind, (".csv", 500))
        if kind == "vectors" and not self.dataset.spec.columns:
            ending = ".png" if self.dataset.spec.shape[0] > 1 else ".csv"
        folder = self.run.path / SAMPLES
        folder.mkdir(exist_ok=True)
        with torch.no_grad():
            x = cast(Samples, self.average).sample(n, noise=Noise(self.settings.seed, n, device=self.device))
        codec.write(x.cpu(), folder / f"{self.clock.step:09d}{ending}")

    # -- saving and going on ---------------------------------------------------------------------------------

    def _save(self) -> None:
        self._saved_at = self.clock.seconds
        passed = self.monitor.passed
        distributed.barrier()
        if self.run is None or self.rank > 0:
            return
        if self.run.info.get("last") != self.clock.step or not checkpoint.folder(self.run.checkpoints, self.clock.step).exists():
            self.clock.numbers, self.clock.passed = self._numbers(), passed
            self.commit()
        self.run.update(last=self.clock.step, best=self.clock.best_step)
        checkpoint.prune(self.run.checkpoints, self.settings.keep, protect=self.clock.best_step)

    def commit(self) -> None:
        """Writes the checkpoint of this move, in the place of one that there may be."""
        assert self.run is not None
        info = self.run.info
        checkpoint.save(
            self.run.checkpoints,
            self.clock.step,
            description={
                "model": info["model"],
                "config": info["config"],
                "custom": info.get("custom", {}),
                "spec": self.dataset.spec.to_json(),
                "codec": self.dataset.codec.to_json(),
                "clock": dataclasses.asdict(self.clock),
                "rounds": self.rounds,
                "training": info["training"],
            },
            weights=self.model.state_dict(),
            average=self.average.state_dict(),
            training=recovery.training_state(self),
        )
