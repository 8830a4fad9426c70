"""What a person types wrongly gets one sentence and exit code 2; what a machine does to us leaves the run intact."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time

import kill
import numpy as np
import pytest
import torch
from refusals import refused

from pofx import checkpoint, discovery
from pofx.cli import main
from pofx.core import Model
from pofx.run import Run

README = pathlib.Path(__file__).parents[1] / "README.md"
TINY = ["--steps", "2", "--batch-size", "8", "--quiet"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    random = np.random.default_rng(0)
    np.savez(path, x=random.integers(0, 256, (64, 8, 8), dtype=np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "vae", "--data", data, "--run", str(path), "--model.hidden", "16", *TINY]) == 0
    return str(path)


def tree(folder):
    return {str(path): path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


def child(*arguments, **options):
    program = "import sys; from pofx.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(README.parent)}, **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- mistakes of people


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "gan", "--data", "ring", "--latent", "3"], ["did you mean --model.latent-dim"]),
        (["train", "gan", "--data", "ring", "--gama", "3"], ["did you mean --model.gamma"]),
        (["train", "vaee"], ["vaee", "did you mean vae"]),
        (["train", "vae", "--data", "digitz"], ["digitz", "digits"]),
        (["train", "vae", "--data", "no/such/file.npz"], ["no/such/file.npz"]),
        (["train", "vae", "--model.latent-dimm", "3"], ["latent-dimm", "latent-dim"]),
        (["train", "vae", "--data.valdation", "0"], ["data.valdation", "data.validation"]),
        (["train", "vae", "--minutes", "0"], ["minutes", "more than 0"]),
        (["train", "vae", "--steps", "0"], ["steps", "at least 1"]),
        (["train", "vae", "--steps", "1", "--minutes", "1"], ["--steps", "--minutes"]),
        (["train", "vae", "--steps", "some"], ["some"]),
        (["train", "vae", "--model.latent-dim", "-1"], ["latent-dim", "at least 1"]),
        (["train", "vae", "--model.architecture", "cnn"], ["architecture", "conv"]),
        (["train", "vae", "--data", "digits", "--batch-size", "100000", "--steps", "1"], ["100000", "--batch-size"]),
        (["train", "vae", "--checkpoint-every", "often"], ["--checkpoint-every", "often"]),
        (["train", "vae", "--resume"], ["--run"]),
        (["train"], ["MODEL"]),
        (["trian", "vae"], ["trian", "train"]),
        (["sample", "no-such-run"], ["no-such-run"]),
    ],
    ids=lambda value: " ".join(value) if "train" in value else None,
)
def test_a_mistake_gets_one_sentence(capsys, tmp_path, arguments, says):
    err = refused(capsys, *arguments)
    for word in says:
        assert word in err
    assert not [path for path in tmp_path.rglob("*") if path.name != "runs"], "something was written"


def test_help_says_nothing_that_says_nothing(capsys):
    assert main(["sample", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "None" not in shown
    assert "--mode {draw,mean}" in shown
    assert "--label STR " in shown
    assert main(["train", "gan", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "{None" not in shown
    assert "--data STR" in shown
    # A default of None stays where the text says what it means.
    assert "no limit. (default: None)" in " ".join(shown.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(capsys, data, tmp_path):
    assert "cuda" in refused(capsys, "train", "vae", "--data", data, "--device", "cuda", *TINY)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_conditional_without_labels(capsys, data):
    assert "label" in refused(capsys, "train", "vae", "--data", data, "--model.conditional", "true", *TINY)


def test_a_model_of_other_data_says_what_it_takes(capsys, data):
    err = refused(capsys, "train", "ngram", "--data", data, *TINY)
    assert "tokens" in err
    assert "images" in err


def test_an_existing_run_is_not_overwritten(capsys, run, data):
    before = tree(run)
    assert "--resume" in refused(capsys, "train", "vae", "--data", data, "--run", run, *TINY)
    assert tree(run) == before


def test_a_folder_of_somebody_else(capsys, tmp_path, data):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    refused(capsys, "train", "vae", "--data", data, "--run", "mine", *TINY)
    refused(capsys, "train", "vae", "--run", "mine", "--resume")
    refused(capsys, "sample", "mine")
    assert tree(tmp_path) == before


def test_a_run_in_use(capsys, run):
    before = {path: content for path, content in tree(run).items() if not path.endswith(".lock")}
    with Run.read(pathlib.Path(run)).lock():
        assert "in use" in refused(capsys, "train", "--run", run, "--resume", "--steps", "9")
    assert before == {path: content for path, content in tree(run).items() if not path.endswith(".lock")}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(capsys, tmp_path, data):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "closed" in refused(capsys, "train", "vae", "--data", data, "--run", "closed/run", *TINY)


def test_an_unknown_figure_checkpoint_and_verb(capsys, run):
    assert "there are" in refused(capsys, "plot", run, "zzz") or "did you mean" in refused(capsys, "plot", run, "zzz")
    assert "12345" in refused(capsys, "sample", f"{run}@12345")


# ---------------------------------------------------------------------------------------------------------- resuming


def test_a_finished_run_says_so(capsys, run):
    before = kill.hashes(pathlib.Path(run))
    assert main(["train", "--run", run, "--resume"]) == 0
    assert "finished" in capsys.readouterr().err
    assert kill.hashes(pathlib.Path(run)) == before


@pytest.mark.parametrize(
    ("flag", "value"), [("--seed", "1"), ("--batch-size", "4"), ("--model.latent-dim", "3"), ("--data.flip", "true"), ("--accumulate", "2")]
)
def test_resuming_with_another_flag_is_refused_by_name(capsys, run, flag, value):
    assert flag in refused(capsys, "train", "--run", run, "--resume", flag, value)


def test_resuming_another_model_is_refused(capsys, run):
    assert "vae" in refused(capsys, "train", "autoencoder", "--run", run, "--resume")


def test_a_larger_budget_continues(tmp_path, data):
    path = str(tmp_path / "run")
    assert main(["train", "vae", "--data", data, "--run", path, *TINY]) == 0
    assert main(["train", "vae", "--run", path, "--resume", "--steps", "5", "--quiet"]) == 0
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == 5


def test_a_budget_of_another_kind_takes_the_place_of_the_stored_one(tmp_path, data):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "vae", "--data", data, "--run", str(first), "--model.hidden", "16", *TINY]) == 0
    assert main(["train", "--run", str(first), "--resume", "--epochs", "1", "--quiet"]) == 0
    assert Run.read(first).info["last"] > 2
    assert Run.read(first).info["training"]["steps"] is None
    assert main(["train", "--config", str(first / "run.json"), "--steps", "1", "--run", str(second), "--quiet"]) == 0
    assert Run.read(second).info["last"] == 1
    assert Run.read(second).info["config"]["hidden"] == [16]


def test_patience_without_a_score_and_a_config_that_is_not_there(capsys, data, tmp_path):
    assert "--patience" in refused(capsys, "train", "gan", "--data", data, "--patience", "2", *TINY)
    assert "nope.json" in refused(capsys, "train", "--config", "nope.json")
    assert "--model.optimizer.lr must be more than 0" in refused(capsys, "train", "vae", "--data", data, "--model.optimizer.lr", "0")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_bare_switch_of_the_model(tmp_path, data):
    run = tmp_path / "run"
    assert main(["train", "vae", "--model.norm", "--data.flip", "--data", data, "--run", str(run), *TINY]) == 0
    assert Run.read(run).info["config"]["norm"] is True
    assert Run.read(run).info["data"]["options"]["flip"] is True


def test_runs_are_numbered(tmp_path, data):
    for _ in range(2):
        assert main(["train", "vae", "--data", data, *TINY]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["vae-images-001", "vae-images-002"]


# ----------------------------------------------------------------------------------------------- signals, full disks


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on(tmp_path, data, number, code):
    path = tmp_path / "run"
    training = child("train", "vae", "--data", data, "--run", str(path), "--minutes", "5", "--batch-size", "8", "--quiet")
    try:
        # There is a line of metrics once training is under way.
        deadline = time.monotonic() + 60
        while not (path / "metrics.jsonl").exists() and time.monotonic() < deadline and training.poll() is None:
            time.sleep(0.05)
        training.send_signal(number)
        _, err = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == code, err
    assert "Traceback" not in err
    step = checkpoint.steps(path / "checkpoints")[-1]
    assert step > 0
    checkpoint.verify(checkpoint.folder(path / "checkpoints", step))
    assert main(["train", "--run", str(path), "--resume", "--minutes", "0.0001", "--quiet"]) == 0


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path, data):
    path = tmp_path / "run"
    small = ["--model.hidden", "8", "--model.latent-dim", "2"]
    assert main(["train", "vae", "--data", data, "--run", str(path), *small, *TINY]) == 0
    before = tree(path / "checkpoints")
    largest = max(map(len, before.values()))

    def limit():
        # A write beyond the limit fails as it does where the disk is full, once the signal is ignored.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 100, largest - 100))

    training = child("train", "--run", str(path), "--resume", "--steps", "6", "--quiet", preexec_fn=limit)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 1, err
    assert "Traceback" not in err
    assert "cannot write" in err
    assert tree(path / "checkpoints") == before
    assert main(["train", "--run", str(path), "--resume", "--steps", "6", "--quiet"]) == 0


# ----------------------------------------------------------------------------------------------------- one new file


def readme_code(part):
    """The program with these characters that the README shows."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (code,) = [block for block in blocks if part in block]
    return code


def test_networks_of_ones_own_are_trained_as_the_readme_says():
    names = {}
    exec(readme_code("nn.Sequential").replace("steps=300", "steps=2"), names)
    assert names["model"].encode(torch.rand(3, 1, 8, 8)).shape == (3, 5)
    assert names["model"].decode(torch.randn(2, 5)).shape == (2, 1, 8, 8)


def test_a_model_is_one_file(tmp_path, monkeypatch, data):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "toy.py").write_text(textwrap.dedent(readme_code("(Model")), encoding="utf-8")
    monkeypatch.setenv("POFX_PATH", str(folder))
    assert "toy" in discovery.names("models")
    assert issubclass(discovery.model("toy"), Model)
    assert (
        main(["train", "toy", "--data", data, "--run", "run", "--model.latent-dim", "3", "--steps", "30", "--batch-size", "8", "--quiet"])
        == 0
    )
    run = Run.open("run@last")
    assert run.info["config"]["latent_dim"] == 3
    assert main(["sample", "run", "--n", "4", "--out", "drawn.npz"]) == 0
    assert np.load("drawn.npz")["x"].shape[0] == 4
    assert main(["train", "--run", "run", "--resume", "--quiet"]) == 0


def test_the_readme_lists_the_models(capsys):
    assert main(["list", "models"]) == 0
    listed = capsys.readouterr().out
    text = README.read_text(encoding="utf-8")
    table = text.partition("<!-- models -->")[2].partition("<!-- end of models -->")[0]
    named = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, flags=re.M)
    assert [name for name, _ in named] == discovery.names("models")
    for name, summary in named:
        assert name in listed
        assert summary == discovery.summary("models", name).replace("|", "\\|"), "run `make readme`"


def test_a_folder_of_models_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("POFX_PATH", str(tmp_path / "nowhere"))
    assert main(["list", "models"]) == 2
    assert "nowhere, which is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("train", "vae", "--steps", "2"), ("bakeoff", "--minutes", "1")])
@pytest.mark.parametrize("shape", [(60, 3), (300, 8, 8)])
def test_equal_examples_are_refused(verb, shape, capsys):
    np.save("same.npy", np.full(shape, 0.5, dtype=np.float32))
    err = refused(capsys, *verb, "--data", "same.npy")
    assert "are equal" in err
    assert "Warning" not in err


def test_a_text_of_one_symbol_is_refused_and_one_of_two_is_not(capsys):
    pathlib.Path("same.txt").write_text("a" * 5000)
    assert "training symbols" in refused(capsys, "train", "gpt", "--data", "same.txt", "--steps", "1")
    rows = np.zeros((600, 3), dtype=np.float32)
    rows[-1] = 1
    assert not load_arrays(rows).train.constant
    assert load_arrays(rows[:2]).train.constant


def load_arrays(rows):
    from pofx.data import Options, from_arrays

    return from_arrays(rows, options=Options(validation=0.0))


def test_arguments_the_wrong_way_round_are_set_right(run, capsys):
    assert f"pofx plot {run} samples" in refused(capsys, "plot", "samples", run)
    assert "pofx train MODEL --data digits" in refused(capsys, "train", "digits", "vae")
