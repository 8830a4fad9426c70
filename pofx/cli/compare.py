"""Puts trained models side by side, with what is evidence and what is not: pofx compare RUN RUN."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Puts trained models side by side; several seeds of one model share a column."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders on the same data, or RUN@best, RUN@last, RUN@STEP, or a folder that holds runs (a bakeoff's). Those not
    measured yet are measured first."""
    out: str | None = None
    """Page to write, .html: the table, samples side by side, cost against quality, what was trained on what."""
    json: str | None = None
    """File for the numbers as JSON, - for standard output (without the table)."""
    quiet: bool = False
    """No bar."""


def run(options: Options) -> None:
    """Gathers, measures where needed, prints and writes."""
    import json
    import pathlib

    from rich.console import Console

    from pofx import advice, compare
    from pofx.comparison import side_by_side
    from pofx.core import UsageError
    from pofx.page import advice as advised
    from pofx.page import write

    if options.out is not None and not options.out.endswith(".html"):
        raise UsageError(f"--out is a page: name it .html, not {pathlib.Path(options.out).name}")
    found = side_by_side(compare.gather(options.runs, quiet=options.quiet))
    says = [advice.sentences(choice, found.part, None) for choice in advice.choose(found)]
    numbers = json.dumps(found.to_json(), indent=1, ensure_ascii=False)
    if options.out is not None:
        compare.write(pathlib.Path(options.out), found, before=[f"<h2>What the numbers say</h2>{advised(says)}"] if says else [])
    if options.json == "-":
        print(numbers)
        return
    if options.json is not None:
        write(pathlib.Path(options.json), numbers + "\n")
    Console().print(found)
    for sentence in says:
        print(sentence)
    if options.out is not None:
        print(options.out)
