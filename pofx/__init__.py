"""pofx: learns P(X) or P(X|Y) from data and draws new data from it.

Names are imported when they are first used, so that `import pofx` stays fast.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "train": "pofx.api",
    "load": "pofx.run",
    "Run": "pofx.run",
    "evaluate": "pofx.evaluate",
    "UsageError": "pofx.core",
    "Model": "pofx.core",
}
_MODULES = ("api", "core", "data", "losses", "nn", "trainer", "run", "checkpoint", "optim", "discovery", "figures", "metrics", "models")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"pofx.{name}")
    raise AttributeError(f"module 'pofx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
