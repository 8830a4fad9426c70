"""How a model is trained, whatever the model: the flags of `pofx train`, and the device and precision that they mean."""

import dataclasses
import math
from typing import Literal

import torch

from pofx.core import Budget, Config, Fraction, NonNegative, Positive, UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """How a model is trained, whatever the model."""

    steps: Positive | None = None
    """Train for so many rounds; a round is one walk through the model's players."""
    epochs: NonNegative | None = None
    """Train for so many passes over the training data."""
    minutes: NonNegative | None = None
    """Train for so many minutes."""
    seed: int = 0
    """Equal seeds give equal results."""
    batch_size: Positive | None = None
    """Examples of one move; by default the model's recipe says."""
    accumulate: Positive = 1
    """Split each batch into so many parts and add their gradients: less memory, same result."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 computes networks in bfloat16; auto does so where the hardware gains by it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    checkpoint_every: str = "2min"
    """Moves between checkpoints (500), or minutes (2min)."""
    keep: Positive = 3
    """Keep so many of the newest checkpoints, besides the best one."""
    patience: Positive | None = None
    """Stop after so many validations (20 are spread over the budget) without a better score."""
    ema: Fraction | None = None
    """Decay of the averaged weights that sampling and evaluation use; by default the model's recipe says."""
    monitor: bool = True
    """Watch the training: ask the model for its symptoms, look at a game with a discriminator, and go back where it diverges. It takes
    3 % of the time at most."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder (pip install "pofx[track]")."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "minutes"):
            if getattr(self, name) == 0:
                raise UsageError(f"--{name} must be more than 0")
        if sum(value is not None for value in (self.steps, self.epochs, self.minutes)) > 1:
            raise UsageError("--steps, --epochs and --minutes are three ways to give one budget: give one of them")
        self.interval  # noqa: B018 - raises for a malformed one

    @property
    def budget(self) -> Budget | None:
        """The budget, None where nobody gave one."""
        given = {name: getattr(self, name) for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None}
        return Budget(**given) if given else None

    @property
    def interval(self) -> tuple[int | None, float | None]:
        """(moves, seconds) between checkpoints; one of them is None."""
        text = self.checkpoint_every
        number, seconds = (text[:-3], True) if text.endswith("min") else (text, False)
        try:
            value = float(number) if seconds else int(number)
            if not 0 < value < math.inf:
                raise ValueError
        except ValueError as error:
            raise UsageError(f"--checkpoint-every is a number of moves such as 500, or of minutes such as 2min, not {text!r}") from error
        return (None, value * 60) if seconds else (int(value), None)


def pick_device(name: str) -> torch.device:
    """The device of --device. Raises `UsageError` where it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, available in there.items() if available))
    if not there[name]:
        raise UsageError(
            f"--device {name} is not there: this torch ({torch.__version__}) finds {', '.join(d for d, a in there.items() if a)}"
        )
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where it was asked for, or where `auto` knows that the hardware gains by it; else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported()
    else:
        has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        gains = bool(has.get("amx_tile") or has.get("avx512_bf16"))
    return torch.bfloat16 if gains else torch.float32
