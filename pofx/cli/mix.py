"""Makes a hybrid of trained models of one text and of n-grams: pofx mix RUN."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Multiplies what trained models of one text, and n-grams that are counted here, expect of the next token; the validation part
    chooses how far each is trusted. The hybrid is a run like any other."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, or RUN@best, RUN@last, RUN@STEP, of one text."""
    orders: tuple[int, ...] | None = None
    """Orders of the n-grams: tokens of context. By default 3 6 9 for characters and bytes, 1 2 4 for larger pieces."""
    out: str | None = None
    """Folder of the new run; by default runs/hybrid-DATA-NNN."""


def run(options: Options) -> None:
    """Mixes, and prints the run and what was reached where the weights were chosen."""
    import sys

    from pofx import mixing
    from pofx.core import UsageError

    if not options.runs:
        raise UsageError("name a run to mix: pofx mix RUN")
    found = mixing.mix(options.runs, orders=options.orders, out=options.out)
    print(found, file=sys.stderr)
    print(found.run.path)
