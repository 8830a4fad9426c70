"""Signals: the first one lets the move finish and the run be saved, a second one exits at once."""

import os
import pathlib
import signal
import threading
from typing import Any, Self

from pofx.progress import Display


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, and the run is saved. `code` is the exit status that says so."""

    def __init__(self, number: int, path: pathlib.Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; saved: go on with `pofx train --run {path} --resume`")
        self.code = 128 + number


class Stop:
    """Within it, SIGINT and SIGTERM let the move finish and the run be saved; a second one exits at once."""

    def __init__(self, display: Display, *, active: bool) -> None:
        self.display, self.active = display, active
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def _handle(self, number: int, frame: Any) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        self.display.say(f"{signal.Signals(number).name}: finishing the move and saving; once more to exit at once")

    def __enter__(self) -> Self:
        if not self.active or threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
