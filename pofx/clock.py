"""Where a training stands: what a checkpoint must know beside tensors."""

import dataclasses


@dataclasses.dataclass
class Clock:
    """Where training stands; saved in every checkpoint.

    step: moves of all players. round, position: whole rounds done, and moves of the walk done in this one.
    moves: of each player. seconds: of training. validated: examples that a validation reads; None before the first one.
    best, stale: the best validation score, and validations since. ended: players whose span is over.
    line: how many lines of metrics.jsonl were due at the last one. numbers: what the moves since then will put into the next one.
    rollbacks: what was seen each time that training diverged and went back; each time halves the learning rate.
    passed: whether the monitor saw no divergence when this was saved.
    """

    step: int = 0
    round: int = 0
    position: int = 0
    moves: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    validated: int | None = None
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    ended: list[str] = dataclasses.field(default_factory=list)
    line: int = 0
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    rollbacks: list[str] = dataclasses.field(default_factory=list)
    passed: bool = True

    @property
    def factor(self) -> float:
        """On every learning rate."""
        return 0.5 ** len(self.rollbacks)
