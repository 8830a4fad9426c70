"""The page of a run: what was trained on what, curves, pictures, numbers; one HTML file that needs nothing else."""

import json
import pathlib
from itertools import groupby
from typing import Any

from pofx import discovery, figures, page, priors, specimens
from pofx.core import UsageError
from pofx.evaluate import Report, kept
from pofx.findings import Row, number
from pofx.run import Run

NAME = "report.html"
#: Figures that come first; the others follow by name.
SAMPLES = "samples"
FIRST = ("curves", SAMPLES)


def write(run: Run) -> pathlib.Path:
    """Writes RUN/report.html from the run's selected (else its best or last) checkpoint, and returns its path."""
    chosen = run if run.step is not None else Run.open(run.path)
    info = chosen.info
    config = {"model": info["config"], "training": info["training"], "data": info["data"]["options"]}
    found, evaluation = _evaluation(chosen)
    sections = [
        page.paragraphs([f"While training, {name}: {sentence}" for name, sentence in info.get("symptoms", {}).items()], "failed"),
        page.paragraphs(past(chosen), "soft"),
        _summary(found),
        f"<h2>What was trained on what</h2>{page.facts(facts(chosen))}",
        *_pictures(chosen),
        f'<h2 id="evaluation">Evaluation</h2>{evaluation}',
        f"<h2>Configuration</h2><pre>{page.text(json.dumps(config, indent=1, ensure_ascii=False))}</pre>",
    ]
    title = f"{chosen.label} on {info['data']['source']}"
    return page.write(chosen.path / NAME, page.document(title, discovery.summary("models", info["model"]), sections))


def past(run: Run) -> list[str]:
    """What was told while training and was no longer so at its end, a sentence each."""
    seen: dict[str, tuple[int, int, str]] = {}
    for line in run.metrics():
        for name, sentence in line.get("symptoms", {}).items():
            seen[name] = (seen.get(name, (line["step"],))[0], line["step"], sentence)
    return [
        f"While training, from move {first:,} to {last:,} and not at the end, {name}: {sentence}"
        for name, (first, last, sentence) in seen.items()
        if name not in run.info.get("symptoms", {})
    ]


def _summary(report: Report | None) -> str:
    """What a reader must not miss before looking at the pictures: what is flagged, and the numbers that say most."""
    if report is None:
        return ""
    checks = ", ".join(dict.fromkeys(flag.check for flag in report.flags))
    alarm = f'<p class="failed">The evaluation flags this model: <a href="#evaluation">{page.text(checks)}</a></p>' if checks else ""
    at = f" at move {report.step:,}" if report.step is not None else ""
    where = f'On the {page.text(report.part)} part{at} (<a href="#evaluation">all numbers</a>; ± is half of a 95 % interval):'
    return (
        f'{alarm}<p class="soft">{where}</p>{page.facts((row.name, _short(row)) for row in report.headline)}' if report.headline else alarm
    )


def _short(row: Row) -> str:
    """A row in a line."""
    best = min(row.baselines.items(), key=lambda item: -item[1] if row.better == "higher" else item[1], default=None)
    beside = [
        {"lower": "lower is better", "higher": "higher is better"}.get(row.better, ""),
        f"real data {number(row.floor)}" if row.floor is not None else "",
        f"without learning {number(best[1])} ({best[0]})" if best else "",
        f"n = {row.n:,}",
        row.features and f"in {row.features}",
    ]
    unit = ", ".join(filter(None, (row.unit, row.space)))
    return f"{row.value} {unit} ({'; '.join(filter(None, beside))})"


def facts(run: Run) -> list[tuple[str, str]]:
    """What was trained on what, as names and values."""
    info, training, data = run.info, run.info["training"], run.info["data"]
    budget = next(
        (f"{training[unit]:g} {unit}" for unit in ("steps", "epochs", "minutes") if training.get(unit) is not None), "the recipe's"
    )
    spec = data.get("spec") or {}
    shape = " x ".join(map(str, spec.get("shape") or ())) or f"{spec.get('vocabulary', 0):,} symbols"
    facts = {
        "model": run.label,
        "hybrid of": ", ".join(info.get("parts", ())),
        "parameters": f"{info['parameters']:,}" if info.get("parameters") else "",
        "networks of one's own": _listed(info.get("custom")),
        "data": data["source"],
        "examples": f"{spec['size']:,} {spec['kind']} of {shape} to train on" if spec else "",
        "fingerprint": data.get("fingerprint", ""),
        "budget": budget,
        "seconds of training": f"{info['seconds']:,.0f}" if info.get("seconds") is not None else "",
        "seed": training.get("seed"),
        "batch size": training.get("batch_size"),
        "status": info.get("status", ""),
        "checkpoint": f"move {run.step:,}" + (" (best)" if run.step == info.get("best") else "") if run.step is not None else "",
        "versions": _listed(info.get("versions")),
        "hardware": _listed(info.get("hardware")),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in ("", None)]


def _listed(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value is not None)


def _pictures(run: Run) -> list[str]:
    """Every figure that fits the model; one that fails leaves its reason on the page."""
    model, dataset = run.model(), run.dataset()
    sections = []
    for name in sorted(discovery.names("figures"), key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        if not figures.fits(name, model):
            continue
        try:
            shown = ""
            if name == SAMPLES and specimens.readable(dataset):
                shown = specimens.show(specimens.each(run.label, model, dataset), dataset)
            if not shown or dataset.spec.kind != "tokens":
                shown += page.picture(figures.draw(name, model, dataset, run=run), name)
        except UsageError:
            continue  # a picture that these data do not have
        except Exception as error:  # the page is worth having without one picture, and says which one and why
            shown = page.paragraphs([f"This figure could not be drawn: {str(error) or type(error).__name__}"], "failed")
        summary = discovery.summary("figures", name)
        sections.append(f"<h2>{page.text(name.capitalize().replace('-', ' '))}</h2>{page.paragraphs([summary])}{shown}")
    return sections


def _evaluation(run: Run) -> tuple[Report | None, str]:
    """The kept evaluation, and its section."""
    try:
        report = kept(run)
    except UsageError as error:
        return None, page.paragraphs([str(error)], "failed")
    if report is None:
        return None, '<p class="soft">Not measured yet: <code>pofx evaluate</code> fills this in.</p>'
    where = f"On the {report.part} part of {report.data}"
    if report.step is not None:
        where += f", checkpoint at move {report.step:,}"
    if report.prior:
        where += f", codes from the prior {report.prior}"
    if (report.step, report.prior) != (run.step, priors.newest(run)):
        where += f" (an earlier measurement: the {'checkpoint' if report.step != run.step else 'prior'} of this page is another)"
    sentences = [f"{where}.", "Behind ± stands half of a 95 % interval; real is real data against real data at the same n."]
    if report.looks > 1:
        sentences.append(f"This is look {report.looks} at this part: a choice made after many looks is fitted to it.")
    groups = [(about.capitalize(), [_cells(row) for row in rows]) for about, rows in groupby(report.rows, key=lambda row: row.about)]
    table = page.numbers(("measure", "model", "real", "trivial", "n", ""), groups)
    return report, page.flags(("", flag) for flag in report.flags) + page.paragraphs([*report.warnings, *sentences]) + table


def _cells(row: Row) -> list[str]:
    return [
        f"{page.text(row.name)}<br>{page.soft(row.unit)}",
        page.text(row.value),
        page.text(number(row.floor)) if row.floor is not None else "",
        page.lines(f"{number(value)} {name}" for name, value in row.baselines.items()),
        f"{row.n:,}",
        page.soft(row.remark),
    ]
