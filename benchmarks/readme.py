"""Writes the table of models into README.md, between its markers: make readme."""

import pathlib

from pofx import discovery

README = pathlib.Path(__file__).parents[1] / "README.md"
START, END = "<!-- models -->", "<!-- end of models -->"


def table() -> str:
    """One row a model, from the first line of its file."""
    rows = [f"| `{name}` | {discovery.summary('models', name).replace('|', chr(92) + '|')} |" for name in discovery.names("models")]
    return "\n".join(["| model | what it is |", "|---|---|", *rows])


def main() -> None:
    """Replaces what stands between the markers."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
