"""Measures a trained model on held-out data, beside trivial baselines: pofx evaluate RUN."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures a trained model on held-out data, beside trivial baselines."""

    run: tyro.conf.Positional[str]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source, whose test part is measured; by default the run's own."""
    full: bool = False
    """Bounds over the whole part instead of 1,000 examples, and 10,000 samples."""
    json: str | None = None
    """File for the numbers as JSON, - for standard output (without the table). Those of the run's own data are also kept
    in RUN/evaluation.json and in RUN/report.html."""


def run(options: Options) -> None:
    """Measures, prints and writes, and has the report show it."""
    import json
    import pathlib

    from rich.console import Console

    from pofx import report as page
    from pofx.evaluate import evaluate, save
    from pofx.run import Run

    found = Run.open(options.run)
    report = evaluate(found, options.source, full=options.full)
    # Other data's numbers would be taken for the run's.
    if options.source is None:
        save(report, found.path / "evaluation.json")
        page.write(found)
    if options.json == "-":
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
        return
    if options.json is not None:
        save(report, pathlib.Path(options.json))
    Console().print(report)
