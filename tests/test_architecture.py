"""The house rules that a program can check: who imports whom, who names a model, how long files are, what start-up costs."""

import ast
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "pofx"
FILES = sorted(PACKAGE.rglob("*.py"))
MODELS = sorted(path for path in (PACKAGE / "models").glob("*/*.py") if not path.stem.startswith("_"))

# Instruments of metrics and verbs, reached through discovery by these names.
EXCEPTIONS = {"classifier", "mixture", "ngram"}
MODEL_NAMES = {path.stem for path in MODELS} - EXCEPTIONS
FAMILIES = {path.name for path in (PACKAGE / "models").iterdir() if path.is_dir() and not path.name.startswith("_")}

# What each part may import of pofx; parts that are not listed may import anything that is not the command line.
ALLOWED = {
    "core": set(),
    "convolution": set(),
    "losses": {"convolution", "core"},
    "nn": {"core", "losses", "nn"},
    # A mixture finds its parts by their names.
    "models": {"convolution", "core", "discovery", "losses", "nn", "models"},
    "data": {"core", "data"},
    "optim": {"core"},
    "distributed": set(),
    "checkpoint": {"core"},
}


def name(path):
    return str(path.relative_to(ROOT))


def part(path):
    """The first name below pofx: core, nn, models, cli, ..."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """The parts of pofx that a file imports, in functions too; `TYPE_CHECKING` blocks run never and do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {entry.split(".")[1] for entry in dotted if entry.startswith("pofx.")}
    return found - {"__version__"}


def docstrings(tree):
    """The nodes of strings that stand alone: docstrings of modules, classes, functions and fields."""
    return {id(node.value): node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_one_way(path):
    own = part(path)
    found = imported(path)
    if own in ALLOWED:
        assert found <= ALLOWED[own], f"{name(path)} imports {sorted(found - ALLOWED[own])}"
    if own not in {"cli", "__main__"}:
        assert "cli" not in found


@pytest.mark.parametrize("path", [path for path in FILES if part(path) != "models"], ids=name)
def test_nobody_names_a_model(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = docstrings(tree)
    forbidden = MODEL_NAMES | FAMILIES
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            # As a whole string or as a part of a dotted name or a path.
            words = set(node.value.replace("/", ".").split("."))
            assert not words & forbidden, f"{name(path)}:{node.lineno} names {sorted(words & forbidden)}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            words = set(ast.unparse(node).replace(".", " ").replace(",", " ").split())
            assert not words & forbidden, f"{name(path)}:{node.lineno} imports {sorted(words & forbidden)}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in MODEL_NAMES, f"{name(path)}:{node.lineno} reaches for {node.attr}"


def test_the_names_of_models_are_found():
    assert len(MODEL_NAMES) >= 3
    assert len(FAMILIES) >= 3


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_long(path):
    text = path.read_text(encoding="utf-8")
    prose = [node for node in docstrings(ast.parse(text)).values() if isinstance(node.value, str)]
    in_prose = {line for node in prose for line in range(node.lineno, node.end_lineno + 1)}
    lines = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in in_prose]
    assert len(lines) <= 400, f"{name(path)} has {len(lines)} lines of code"


def test_no_file_is_a_drawer():
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "base.py", "misc.py"}
    assert not [name(path) for folder in ("pofx", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py") if path.name in drawers]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_pickled_and_annotations_stay_live(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "dill", "cloudpickle", "joblib"}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "__future__"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False)


def test_import_pofx_does_not_import_torch():
    done = python("-c", "import sys, pofx; print(sorted({'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_help_is_quick():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = python("-c", "import sys; from pofx.cli import main; sys.exit(main())", "--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert "train" in done.stdout
    print(f"pofx --help: {min(seconds):.2f} s")
    assert min(seconds) < 0.4
