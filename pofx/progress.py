"""What a person sees during long work: a bar with rate, time left and the named losses, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
#: Seconds between lines where there is no terminal.
EVERY = 30.0


def warn(sentence: str) -> None:
    """A warning on standard error."""
    print(f"pofx: warning: {sentence}", file=sys.stderr)


def tell(sentences: Iterable[str]) -> None:
    """What a person should know, and need not act on, on standard error."""
    for sentence in sentences:
        print(f"pofx: {sentence}", file=sys.stderr)


class Display:
    """A bar on a terminal, a line every half minute elsewhere, nothing when quiet. Warnings are always shown."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)
        self._live: Live | None = None
        self._notes: dict[str, float] = {}
        self._flags: tuple[str, ...] = ()
        self._last = (0.0, 0.0, 0)
        self._shown = 0.0

    def __enter__(self) -> "Display":
        self._began = self._shown = time.monotonic()
        if not self.quiet and self.console.is_terminal:
            # Drawn when there is news: a refresh thread would take time from training.
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, **values: float) -> None:
        """Numbers to keep showing, such as the latest validation score."""
        self._notes.update(values)

    def flag(self, *names: str) -> None:
        """What is wrong now; its names stand first among the numbers."""
        self._flags = names

    def say(self, sentence: str) -> None:
        """A sentence that stays on the screen."""
        if not self.quiet:
            self.console.print(sentence, highlight=False)

    def warn(self, sentence: str) -> None:
        """A warning, shown even when quiet."""
        warn(sentence)

    def update(self, progress: float, losses: dict[str, float], seconds: float, examples: int) -> None:
        """News: at most ten times a second on a terminal, twice a minute elsewhere, and always at the end."""
        if self.quiet:
            return
        now, done = time.monotonic(), progress >= 1.0
        if not done and now - self._shown < (0.1 if self._live is not None else EVERY):
            return
        self._shown = now
        rate = examples / seconds if seconds > 0 else 0.0
        left = seconds / progress - seconds if progress > 0 else 0.0
        # A terminal cuts off what it has no room for: what matters most comes first.
        totals = {name: value for name, value in losses.items() if name.endswith("/total")}
        shown = {**self._notes, **totals, **losses}
        numbers = "  ".join([*(f"! {name}" for name in self._flags), *(f"{name} {value:.4g}" for name, value in shown.items())])
        width = 24
        bar = "━" * round(width * progress) + "╌" * (width - round(width * progress))
        text = f"{bar} {progress:4.0%}  {_clock(seconds)} + {_clock(left)}  {rate:,.0f}/s  {numbers}"
        if self._live is not None:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"


class Steps:
    """A bar for work that goes through named steps, each over items; without a terminal a line now and then."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._lines = not quiet and not console.is_terminal
        self._name, self._said = "", time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, transient=True,
            disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._all = self._progress.add_task("", total=total)
        self._now = self._progress.add_task("", total=None)

    def __enter__(self) -> "Steps":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, name: str) -> None:
        """The next step begins."""
        self._name = name
        started = self._progress.tasks[self._all].description != ""
        self._progress.update(self._all, description=name, advance=1 if started else 0)
        self._progress.reset(self._now, total=None, visible=False)

    def track(self, items: Iterable[Item], total: int) -> Iterator[Item]:
        """The items of the present step, with their own bar and the time that is left."""
        self._progress.reset(self._now, total=total, visible=True)
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            self._progress.advance(self._now)
            now = time.monotonic()
            if self._lines and now - self._said >= EVERY and done < total:
                self._said = now
                left = _clock((now - start) / done * (total - done))
                print(f"{self._name}: {done:,} of {total:,}, {left} left", file=sys.stderr, flush=True)
