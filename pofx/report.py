"""The page of a run: what was trained on what, curves, pictures, numbers; one HTML file that needs nothing else."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from pofx import discovery, figures
from pofx.core import UsageError
from pofx.data.files import whole
from pofx.evaluate import Report, number
from pofx.run import Run

NAME = "report.html"
#: Figures that come first; the others follow by name.
FIRST = ("curves", "samples")

_CSS = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #667484; --line: #dfe4ea; --back: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #93a1b0; --line: #303a46; --back: #14191f; --card: #1c232b } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem } p { margin: .3rem 0 } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { font-weight: 600; color: var(--soft) } .facts th { width: 11rem }
img { max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line) }
pre { background: var(--card); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: 13px }
.failed { background: var(--card); border-left: 3px solid #d1495b; padding: .6rem .8rem }
"""


def write(run: Run) -> pathlib.Path:
    """Writes RUN/report.html from the run's selected (else its best or last) checkpoint, and returns its path."""
    chosen = run if run.step is not None else Run.open(run.path)
    info = chosen.info
    title = f"{info['model']} on {info['data']['source']}"
    sections = [f"<h2>What was trained on what</h2>{_table(_facts(chosen))}", *_pictures(chosen), _evaluation(chosen)]
    config = json.dumps(
        {"model": info["config"], "training": info["training"], "data": info["data"]["options"]}, indent=1, ensure_ascii=False
    )
    sections.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(discovery.summary("models", info["model"]))}</p>'
        f"{''.join(sections)}</body></html>\n"
    )
    path = chosen.path / NAME
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _facts(run: Run) -> list[tuple[str, str]]:
    info, training, data = run.info, run.info["training"], run.info["data"]
    budget = next(
        (f"{training[unit]:g} {unit}" for unit in ("steps", "epochs", "minutes") if training.get(unit) is not None), "the recipe's"
    )
    spec = data.get("spec") or {}
    shape = " x ".join(map(str, spec.get("shape") or ())) or f"{spec.get('vocabulary', 0):,} symbols"
    facts = {
        "model": info["model"],
        "parameters": f"{info['parameters']:,}" if info.get("parameters") else "",
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


def _table(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts)
    return f'<table class="facts">{rows}</table>'


def _pictures(run: Run) -> list[str]:
    """Every figure whose capabilities the model has; one that fails leaves its reason on the page."""
    model, dataset = run.model(), run.dataset()
    sections = []
    for name in sorted(discovery.names("figures"), key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        module = discovery.load("figures", name)
        if not set(module.needs) <= model.capabilities:
            continue
        try:
            picture = io.BytesIO()
            module.draw(model, dataset, run=run, seed=0).savefig(picture, dpi=figures.DPI, format="png")
            encoded = base64.b64encode(picture.getvalue()).decode()
            shown = f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'
        except UsageError:
            continue  # a picture that these data do not have
        except Exception as error:  # the page is worth having without one picture, and says which one and why
            shown = f'<p class="failed">This figure could not be drawn: {html.escape(str(error) or type(error).__name__)}</p>'
        summary = discovery.summary("figures", name)
        sections.append(f'<h2>{html.escape(name.capitalize())}</h2><p class="soft">{html.escape(summary)}</p>{shown}')
    return sections


def _evaluation(run: Run) -> str:
    path = run.path / "evaluation.json"
    if not path.exists():
        return '<h2>Evaluation</h2><p class="soft">Not measured yet: <code>pofx evaluate</code> fills this in.</p>'
    report = Report.from_json(json.loads(path.read_text(encoding="utf-8")))
    rows = []
    for row in report.rows:
        theirs = "<br>".join(f"{number(trivial)} {html.escape(name)}" for name, trivial in row.baselines.items())
        measure = f'{html.escape(row.name)}<br><span class="soft">{html.escape(row.unit)}</span>'
        cells = (measure, row.value, theirs, f"{row.n:,}", f'<span class="soft">{html.escape(row.remark)}</span>')
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("measure", "model", "trivial baseline", "n", ""))
    where = f"On the {report.part} part of {report.data}" + (f", checkpoint at move {report.step:,}." if report.step is not None else ".")
    return f'<h2>Evaluation</h2><p class="soft">{html.escape(where)}</p><table><tr>{head}</tr>{"".join(rows)}</table>'
