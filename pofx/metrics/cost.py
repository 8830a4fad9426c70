"""What a model costs: parameters, training time and memory, and the time of a sample."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pofx import examples
from pofx.core import Samples
from pofx.findings import Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = ()
kinds = frozenset({"images", "tokens", "vectors", "sequences"})


def measure(subject: "Subject") -> Iterator[Row]:
    """Facts of the run, and one timing of drawing samples on this machine."""
    info = subject.info

    def row(name: str, unit: str, value: float, n: int = 1, note: str = "") -> Row:
        return Row(about="cost", name=name, unit=unit, model=value, error=None, n=n, better="neither", note=note)

    yield row("parameters", "numbers", sum(parameter.numel() for parameter in subject.model.parameters()))
    if info.get("seconds"):
        yield row("training", "seconds", info["seconds"])
        if info.get("examples"):
            yield row("training speed", "examples per second", info["examples"] / info["seconds"])
    if info.get("peak_memory"):
        yield row("peak memory of training", "MB", info["peak_memory"] / 1e6, note="of the whole process, data included")
    if Samples in subject.model.capabilities:
        n = len(subject.drawn)
        # The first part warms caches; the last may be short.
        parts = 1000 * np.array(subject.drawing[1:-1] or subject.drawing)
        value, error, _ = mean(parts)
        yield Row(
            about="cost", name="drawing", unit="ms per sample", model=value, error=error, n=n,
            note=f"in parts of {examples.PART}, on the machine that measured",
        )  # fmt: skip
