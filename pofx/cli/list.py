"""Lists models, data, metrics, figures, priors and runs, a line each: pofx list [models|data|metrics|figures|priors|runs [DIR]]."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, cast

import tyro

if TYPE_CHECKING:
    from pofx.evaluate import Report

WHAT = ("models", "data", "metrics", "figures", "priors", "runs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Lists what there is, a line each."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")] = ""
    """models, data, metrics, figures, priors or runs; by default all of them."""
    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")] = "runs"
    """Where to look for runs."""


def run(options: Options) -> None:
    """Prints the lines, under headings where everything is listed."""
    from pofx import discovery
    from pofx.core import UsageError

    if options.what and options.what not in WHAT:
        raise UsageError(discovery.unknown("list", options.what, list(WHAT)))
    if options.what == "runs" and not pathlib.Path(options.folder).is_dir() and options.folder != "runs":
        raise UsageError(f"there is no folder {options.folder}: give the folder that holds the runs")
    for what in [options.what] if options.what else WHAT:
        rows = _rows(what, options.folder)
        if not options.what:
            print(f"{what}:")
        width = max((len(name) for name, _ in rows), default=0)
        for name, text in rows:
            print(f"{'' if options.what else '  '}{name:<{width}}  {text}")


def _rows(what: str, folder: str) -> list[tuple[str, str]]:
    from pofx import discovery

    if what == "runs":
        return _runs(pathlib.Path(folder))
    if what == "data":
        from pofx import data

        return list(data.names().items())
    kind = cast("discovery.Kind", what)
    rows = [(name, discovery.summary(kind, name)) for name in discovery.names(kind)]
    if what == "figures":
        from pofx import figures

        return [(name, f"{text} {figures.needed(name)}") for name, text in rows]
    return rows


def _runs(folder: pathlib.Path) -> list[tuple[str, str]]:
    from pofx.core import UsageError
    from pofx.evaluate import kept
    from pofx.run import Run

    rows = []
    for path in sorted(folder.glob("*/run.json")):
        try:
            run = Run.read(path.parent)
            info, report = run.info, kept(run)
        except UsageError as error:
            rows.append((str(path.parent), f"unreadable: {error}"))
            continue
        move = f"move {info['last']:,}" if info.get("last") is not None else "no checkpoint"
        score = _score(report, info.get("last"))
        wrong = f"  ! {', '.join(symptoms)}" if (symptoms := info.get("symptoms")) else ""
        rows.append((str(path.parent), f"{run.label}  {info['data']['source']}  {info.get('status', 'unknown')}  {move}{score}{wrong}"))
    return rows


def _score(report: "Report | None", last: int | None) -> str:
    """The number that says most of an evaluation, and of which move it is where that is not the last one."""
    if report is None or not report.headline:
        return ""
    row = report.headline[0]
    at = f", at move {report.step:,}" if report.step not in (None, last) else ""
    return f"  {row.arrow} {row.name} {row.value} ({report.part}, n = {row.n:,}{at})"
