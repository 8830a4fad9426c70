"""Finds directions of the codes that turn what is decoded into each class, or change an attribute or a value: pofx directions RUN."""

import dataclasses
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Finds directions of the codes along which what is decoded becomes one of a class, gains an attribute or grows in a value;
    `pofx sample RUN --direction` uses them."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    codes: str | None = None
    """An .npz of `z` and `label`, as `pofx encode` and `pofx invert` write them. By default draws of the prior, with the classes
    that a classifier gives to what they are decoded to; for attributes and values codes that the model gives to its training data."""
    classifier: str | None = None
    """A run of a classifier, which names what is decoded. By default one of the labels of the run's own data."""
    n: int = 5000
    """How many draws of the prior, or codes of training data."""
    seed: int = 0
    """Equal seeds give equal directions."""
    out: str | None = None
    """.npz of the directions; a picture of the same name with .png stands beside it. By default RUN/directions/STEP.npz."""
    quiet: bool = False
    """No bar."""


def run(options: Options) -> None:
    """Finds, measures, writes, and prints what the directions do."""
    import pathlib

    from pofx import asked, directions, discovery, examples, figures
    from pofx.core import Attributes, Classes, Decodes, UsageError, Values
    from pofx.progress import Steps

    if options.n < 2:
        raise UsageError(f"--n must be at least 2, not {options.n}")
    found = asked.opened(options.run)
    path = directions.default(found) if options.out is None else pathlib.Path(options.out)
    if path.suffix != ".npz":
        raise UsageError(f"directions are written to .npz, not to {path.name}")
    model = found.model()
    discovery.require(model, Decodes, what="directions")
    if options.classifier is None and options.codes is None:
        directions.speaking(model, found)
    meaning = found.dataset().spec.label if options.classifier is None else None
    if isinstance(meaning, (Attributes, Values)):
        # No classifier says what a code is decoded to: the labels are of the codes.
        with Steps(1, quiet=options.quiet) as steps:
            steps.step("codes")
            if options.codes is not None:
                z, label = directions.labelled_codes(pathlib.Path(options.codes), model, meaning)
            else:
                z, label = directions.own_codes(model, found, options.n, steps)
            result = directions.find_each(z, label, meaning, examples.prior_scale(model))
        shown = directions.strip(model, result, directions.draws(model, directions.MEASURED, options.seed + 1))
        directions.save(result, None, found, path)
        if shown is not None:
            figures.save(shown, path.with_suffix(".png"))
        print(f"{directions.describe(result, None)}\n{path}")
        return
    with Steps(3, quiet=options.quiet) as steps:
        steps.step("classifier")
        judge = directions.judge(model, found, options.classifier)
        steps.step("codes")
        if options.codes is not None:
            z, label = directions.labelled_codes(pathlib.Path(options.codes), model, Classes(judge.names))
        else:
            z = directions.draws(model, options.n, options.seed)
            label = directions.named(model, judge, z, steps)
        result = directions.find(z, label, judge.names, examples.prior_scale(model))
        steps.step("moves")
        # Other codes than those that the directions were found with.
        fresh = directions.draws(model, directions.MEASURED, options.seed + 1)
        effect = directions.effect(model, result, judge, fresh, steps)
        drawing = directions.picture(model, result, effect, judge, fresh)
    directions.save(result, effect, found, path)
    figures.save(drawing, path.with_suffix(".png"))
    print(f"{directions.describe(result, effect)}\n{path}")
