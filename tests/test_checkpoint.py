"""A checkpoint is whole, or it is known not to be: damage is detected, named, and the checkpoint before is used."""

import hashlib
import json
import shutil

import kill
import pytest
import torch

from pofx import checkpoint
from pofx.checkpoint import Damaged
from pofx.cli import main
from pofx.core import TrainingError
from pofx.run import Run, load

FILES = ("config.json", "weights.safetensors", "ema.safetensors", "training.safetensors", "manifest.json")


def save(folder, step=5, *, value=0.0):
    tensors = {"a.weight": torch.full((3, 4), value), "n": torch.tensor(7)}
    return checkpoint.save(
        folder, step, description={"model": "none", "step": step}, weights=tensors, average=tensors, training={"rng": torch.arange(9)}
    )


def flip(path, byte, bit):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_what_is_saved_is_read(tmp_path):
    folder = save(tmp_path, value=2.5)
    assert folder == tmp_path / "000000005"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    description, tensors = checkpoint.read(folder)
    assert description == {"model": "none", "step": 5}
    assert torch.equal(tensors["weights.safetensors"]["a.weight"], torch.full((3, 4), 2.5))
    assert torch.equal(tensors["training.safetensors"]["rng"], torch.arange(9))


def test_equal_states_give_equal_files(tmp_path):
    first, second = save(tmp_path / "a"), save(tmp_path / "b")
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_bit_counts(tmp_path, name):
    folder = save(tmp_path)
    size = (folder / name).stat().st_size
    generator = torch.Generator().manual_seed(0)
    places = {0, size - 1, *torch.randint(size, (24,), generator=generator).tolist()}
    for byte in sorted(places):
        flip(folder / name, byte, byte % 8)
        with pytest.raises(Damaged, match=name.replace(".", r"\.")):
            checkpoint.read(folder)
        flip(folder / name, byte, byte % 8)
    checkpoint.read(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing_files_are_named(tmp_path, name):
    folder = save(tmp_path)
    whole = (folder / name).read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(Damaged, match=name.replace(".", r"\.")):
            checkpoint.verify(folder)
    (folder / name).write_bytes(whole + b"\n")
    with pytest.raises(Damaged, match=name.replace(".", r"\.")):
        checkpoint.verify(folder)
    (folder / name).unlink()
    with pytest.raises(Damaged, match=name.replace(".", r"\.")):
        checkpoint.verify(folder)


def test_the_manifest_hashes_every_file_and_itself(tmp_path):
    folder = save(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == set(FILES) - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    # A file and its hash exchanged together: the manifest's own checksum tells.
    (folder / "config.json").write_bytes(b"{}")
    manifest["files"]["config.json"] = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        checkpoint.verify(folder)


def test_leftovers_are_swept_and_not_mistaken(tmp_path):
    save(tmp_path, 5)
    (tmp_path / ".000000006.tmp").mkdir()
    (tmp_path / ".000000006.tmp" / "config.json").write_text("{}")
    assert checkpoint.steps(tmp_path) == [5]
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000005"]


def test_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, 2, protect=3)
    assert checkpoint.steps(tmp_path) == [3, 5, 6]
    checkpoint.prune(tmp_path, 2, protect=None)
    assert checkpoint.steps(tmp_path) == [5, 6]


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, 5, value=1.0)
    before = {name: (tmp_path / "000000005" / name).read_bytes() for name in FILES}
    write = checkpoint.write_bytes

    def full(path, content):
        if path.name == "ema.safetensors":
            raise TrainingError("the disk is full")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    for step in (5, 6):
        with pytest.raises(TrainingError):
            save(tmp_path, step, value=2.0)
        assert checkpoint.steps(tmp_path) == [5]
        assert [path.name for path in tmp_path.iterdir()] == ["000000005"]
        assert before == {name: (tmp_path / "000000005" / name).read_bytes() for name in FILES}


def test_restoring_checks_names_and_shapes():
    module = torch.nn.Linear(2, 3)
    with pytest.raises(Damaged, match="bias"):
        checkpoint.restore(module, {"weight": torch.zeros(3, 2)})
    with pytest.raises(Damaged, match="weight"):
        checkpoint.restore(module, {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with two checkpoints or more."""
    folder = tmp_path_factory.mktemp("run")
    assert main(kill.arguments(kill.first(), folder, folder / "run")) == 0
    return folder / "run"


@pytest.mark.parametrize("name", FILES)
def test_resuming_passes_over_a_damaged_checkpoint(trained, tmp_path, name, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    expected = kill.hashes(run)
    kept = checkpoint.steps(run / "checkpoints")
    assert len(kept) >= 2
    last = checkpoint.folder(run / "checkpoints", kept[-1])
    flip(last / name, (last / name).stat().st_size // 2, 3)
    capsys.readouterr()
    assert main(["train", "--run", str(run), "--resume"]) == 0
    # It says which file is bad, goes on from the one before, and ends where it ended.
    assert name in capsys.readouterr().err.replace("\n", "")
    assert kill.hashes(run) == expected


def test_loading_a_damaged_checkpoint_is_refused_by_name(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    step = checkpoint.steps(run / "checkpoints")[-1]
    flip(checkpoint.folder(run / "checkpoints", step) / "ema.safetensors", 100, 0)
    assert main(["sample", f"{run}@last", "--n", "1", "--out", str(tmp_path / "x.npz")]) == 2
    assert "ema.safetensors" in capsys.readouterr().err


def test_loaded_is_what_was_saved(trained):
    run = Run.open(f"{trained}@last")
    model = load(run)
    _, tensors = checkpoint.read(checkpoint.folder(run.checkpoints, run.step))
    average = tensors["ema.safetensors"]
    assert not model.training
    assert set(model.state_dict()) == set(average)
    assert all(torch.equal(value, average[key]) for key, value in model.state_dict().items())
