"""What training asks of the processor ends with it."""

import numpy as np
import torch

import pofx
from pofx.processor import flushed_subnormals


def tiny():
    """Whether the least numbers are told from 0."""
    return bool((torch.full((1,), 1e-39) * 1.0 > 0).all()), bool(np.float32(1e-39) * np.float32(1.0) > 0)


def test_subnormal_numbers_are_zero_within_and_come_back():
    assert tiny() == (True, True)
    with flushed_subnormals():
        assert tiny()[0] is False
        with flushed_subnormals():
            pass
        assert tiny()[0] is False
    assert tiny() == (True, True)


def test_training_leaves_the_processor_as_it_was(tmp_path):
    pofx.train("vae", "ring", run=tmp_path / "run", steps=2, quiet=True, report=False)
    assert tiny() == (True, True)
