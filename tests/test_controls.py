"""What is known to be wrong is flagged by the check meant for it, and what is right by none.

The table in `benchmarks/controls.py` was written before the checks: for each control, checks that must fire and checks
that may; no other may. Here it is gone through on digits; that benchmark does so on Fashion-MNIST, with trained models.
"""

import dataclasses
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
from controls import CHECKING, CONTROLS, TABLE, collapsed, control, divided, verdict

from pofx import data
from pofx.data.dataset import Split

SEEDS = range(5)
#: A judge of classes would have to be trained first.
WITHOUT_A_JUDGE = [name for name in CHECKING if name != "labels"]


@pytest.fixture(scope="module")
def digits():
    """A third of the digits to train on, a third to measure on, a third to make samples of."""
    dataset = data.load("digits")
    every = data.everything(dataset)
    train, test = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).split([599, 1198])
    train, test = (Split(every.x, every.label, rows=rows, bits=every.bits) for rows in (train, test))
    return divided(dataclasses.replace(dataset, train=train, validation=None, test=test))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_flagged_by_its_own_check_and_by_no_forbidden_one(digits, name):
    for seed in SEEDS:
        found = control(name, *digits, seed, n=599, checking=WITHOUT_A_JUDGE)
        assert not verdict(name, found), f"seed {seed}: {verdict(name, found)}"


def test_a_collapsed_latent_is_flagged(digits, tmp_path):
    for seed in SEEDS:
        found = collapsed(digits[0], seed, tmp_path, checking=WITHOUT_A_JUDGE)
        assert not verdict("collapsed latent", found), f"seed {seed}: {verdict('collapsed latent', found)}"


def test_only_the_copying_model_may_be_called_memorisation():
    for name, (must, may) in TABLE.items():
        assert ("memorisation" in must | may) == (name == "training images")


def test_a_verdict_names_what_did_not_fire_and_what_must_not_have():
    assert not verdict("blurred", {"blur": "so it is"})
    assert verdict("blurred", {}) == "blur did not fire"
    assert "copies" in verdict("held-out data", {"memorisation": "copies"})
