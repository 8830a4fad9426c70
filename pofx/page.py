"""Pieces of the pages that pofx writes: one HTML file each, which needs nothing else and reads well on a phone."""

import base64
import html
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pofx import figures
from pofx.data.files import whole
from pofx.findings import Flag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSS = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #667484; --line: #dfe4ea; --back: #fff; --card: #f6f8fa; --bad: #d1495b }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #93a1b0; --line: #303a46; --back: #14191f; --card: #1c232b } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem } h3 { font-size: 1rem; margin: 0 0 .4rem }
h1, h2, h3, p, li { overflow-wrap: anywhere } p { margin: .3rem 0 } .soft { color: var(--soft) }
.wide { overflow-x: auto; max-width: 100%; -webkit-overflow-scrolling: touch }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft) } .facts th { width: 11rem } .facts td { overflow-wrap: anywhere }
.numbers td, .numbers th { min-width: 6.5rem } .numbers .first { min-width: 10rem } .numbers .note { min-width: 14rem }
.numbers .group td { padding-top: 1rem; font-weight: 600; color: var(--soft) }
img { max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line) }
.side { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)) }
pre { background: var(--card); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: 13px }
.prose { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .6rem }
.failed, .advice { background: var(--card); border-left: 3px solid var(--bad); padding: .6rem .8rem; margin: .6rem 0 }
.advice { border-color: #2a9d8f }
@media (max-width: 40rem) { body { margin: 1.2rem auto; padding: 0 .8rem } .facts th { width: 7rem } }
"""

#: From text to HTML.
text = html.escape


def document(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """A whole page of sections of HTML under a title, which are text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_CSS}</style></head><body>"
        f'<h1>{text(title)}</h1><p class="soft">{text(subtitle)}</p>{"".join(sections)}</body></html>\n'
    )


def write(path: pathlib.Path, page: str) -> pathlib.Path:
    """Writes the page, whole or not at all, and returns its path."""
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def facts(values: Iterable[tuple[str, str]]) -> str:
    """A table of names and values, which are text."""
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in values)
    return f'<table class="facts">{rows}</table>'


def numbers(head: Sequence[str], groups: Iterable[tuple[str, Sequence[Sequence[str]]]]) -> str:
    """A table that scrolls inside its own container where it is wider than the screen.

    Arguments:
        head: text. groups: of rows, each under its name, which is text; cells are HTML. A last column without a name holds notes.
    """
    last = len(head) - 1 if not head[-1] else -1

    def row(tag: str, cells: Sequence[str]) -> str:
        kinds = [' class="first"' if i == 0 else ' class="note"' if i == last else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"

    body = "".join(
        (f'<tr class="group"><td colspan="{len(head)}">{text(name)}</td></tr>' if name else "")
        + "".join(row("td", cells) for cells in rows)
        for name, rows in groups
    )
    return f'<div class="wide"><table class="numbers">{row("th", [text(name) for name in head])}{body}</table></div>'


def folded(sentence: str) -> str:
    """Text that unfolds where it is asked for."""
    return f'<details class="soft"><summary>about</summary>{text(sentence)}</details>' if sentence else ""


def soft(sentence: str) -> str:
    """Text in a paler colour."""
    return f'<span class="soft">{text(sentence)}</span>'


def lines(values: Iterable[str]) -> str:
    """Lines of text in one cell."""
    return "<br>".join(map(text, values))


def paragraphs(sentences: Iterable[str], kind: str = "soft") -> str:
    """Text, a paragraph a sentence; `kind` is soft, failed (something is wrong) or advice."""
    return "".join(f'<p class="{kind}">{text(sentence)}</p>' for sentence in sentences)


def advice(sentences: Iterable[str]) -> str:
    """Text, a paragraph each, whose first sentence is what to do and whose others are why."""
    parts = (sentence.partition(". ") for sentence in sentences)
    return "".join(f'<p class="advice"><strong>{text(first)}.</strong> {text(rest)}</p>' for first, _, rest in parts)


def flags(found: Iterable[tuple[str, Flag]]) -> str:
    """Flags, each with whose it is (empty where that is plain)."""
    return "".join(
        f'<p class="failed"><strong>{text(f"{whose}: " if whose else "")}{text(flag.check)}</strong> {text(flag.sentence)}</p>'
        for whose, flag in found
    )


def picture(figure: "Figure", name: str) -> str:
    """A figure inside the page."""
    content = io.BytesIO()
    with figures.rendering():
        figure.savefig(content, dpi=figures.DPI, format="png")
    return f'<img alt="{text(name)}" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'
