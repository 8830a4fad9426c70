"""Measures a trained model on held-out data, beside trivial baselines: pofx evaluate RUN."""

import dataclasses
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures a trained model on held-out data, beside trivial baselines."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source, whose test part is measured; by default the run's own."""
    full: bool = False
    """10,000 samples instead of 2,000, likelihoods over the whole part instead of 1,000 examples (524,288 tokens of a text), and bounds
    with 5,000 importance samples instead of 500."""
    features: str = "auto"
    """What samples are compared in: components, convolutions, frozen, labels, or the path of a TorchScript network; auto takes
    the network that comes with pofx where there is one for these data, else convolutions for images, else components."""
    part: Literal["test", "validation"] | None = None
    """What is measured: by default test, where there is one."""
    quiet: bool = False
    """No bar."""
    json: str | None = None
    """File for the numbers as JSON, - for standard output (without the table). Those of the run's own data and of the checkpoint that
    RUN stands for are also kept in RUN/evaluation.json and in RUN/report.html."""


def run(options: Options) -> None:
    """Measures, prints and writes, and has the report show it."""
    import json
    import pathlib

    from rich.console import Console

    from pofx import asked
    from pofx import report as page
    from pofx.evaluate import evaluate, keep, save
    from pofx.run import Run

    found = asked.opened(options.run)
    report = evaluate(found, options.source, full=options.full, features=options.features, part=options.part, quiet=options.quiet)
    # Numbers of other data, or of another checkpoint than RUN stands for, would be taken for the run's.
    own = found.step == Run.open(found.path).step
    if options.source is None and own:
        keep(found, report)
        page.write(found)
    if options.json == "-":
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
        return
    if options.json is not None:
        save(report, pathlib.Path(options.json))
    Console().print(report)
    if options.source is None and options.json is None and not own:
        print(f"numbers of a checkpoint of one's choice are not kept in {found.path}: --json FILE writes them")
