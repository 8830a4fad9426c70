"""Two processes that share every batch learn what one process learns."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import pofx
from pofx.cli import main
from pofx.run import Run

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")


def test_two_ranks_learn_what_one_learns(tmp_path):
    data = tmp_path / "images.npz"
    np.savez(data, x=np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8))
    # A model without noise in its loss, so that the sum over ranks is the whole batch's gradient but for rounding.
    arguments = ["train", "autoencoder", "--data", str(data), "--steps", "12", "--batch-size", "16", "--precision", "fp32", "--quiet"]
    arguments += ["--model.dropout", "0", "--model.optimizer.name", "sgd"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*arguments, "--run", str(one)]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "pofx"]
    done = subprocess.run(
        [*launcher, *arguments, "--run", str(two)], env=os.environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Run.read(two).info["status"] == "finished"
    assert Run.read(two).info["last"] == 12
    alone, together = dict(pofx.load(one).named_parameters()), dict(pofx.load(two).named_parameters())
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5)
    # One rank writes: the numbers of every line are there once.
    steps = [line.split('"step": ')[1].split(",")[0] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == len((one / "metrics.jsonl").read_text().splitlines())
