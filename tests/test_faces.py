"""The benchmark of faces on made-up pictures: who is left out, at which points a growth is looked at, and what is made of them."""

import faces as benchmark
import numpy as np
import pytest
import torch
from PIL import Image

import pofx
from pofx import data, discovery, examples
from pofx.models.adversarial.progressive_gan import Schedule

SIZES = ((4, 4), (8, 8), (16, 16))


def test_points_lie_a_tenth_of_a_stage_after_a_growth_began_and_after_it_is_over():
    ends = Schedule.of((1, 1, 2), (1, 1), SIZES).ends
    found = benchmark.points(SIZES, ends)
    assert found == {
        "4 x 4": pytest.approx(1 / 6),
        "8 x 8 begun": pytest.approx(1.2 / 6),
        "8 x 8 grown": pytest.approx(2.2 / 6),
        "8 x 8": pytest.approx(3 / 6),
        "16 x 16 begun": pytest.approx(3.3 / 6),
        "16 x 16 grown": pytest.approx(4.3 / 6),
    }
    assert list(found.values()) == sorted(found.values())


@pytest.fixture
def pictures(tmp_path):
    """Three people in the training part and two left out, 8 x 8."""
    random = np.random.default_rng(0)
    for person in ("s1", "s2", "s3", "s10", "s20"):
        (tmp_path / "all" / person).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "all" / person / f"{i}.png")
    return data.load(benchmark.divided(tmp_path / "all", tmp_path / "divided"), data.Options(validation=0.0))


def test_people_are_left_out_whole(pictures):
    assert (len(pictures.train), len(pictures.test), pictures.validation) == (24, 16, None)
    assert {pictures.spec.label.names[i] for i in pictures.test.batch(torch.arange(16)).label} == {"s10", "s20"}


def test_what_a_training_kept_at_its_points_is_compared(pictures, tmp_path):
    faces = benchmark.Faces(pictures, 400)
    assert faces.n == 40
    cls = discovery.model("progressive_gan")
    own = cls.milestones
    with benchmark.watched(faces.n):
        run = pofx.train(
            "progressive_gan", pictures, run=tmp_path / "run", steps=40, batch_size=8, channels=4, latent_dim=4, quiet=True, report=False
        )  # fmt: skip
    assert cls.milestones is own
    # 4 x 4 for a quarter of 80 moves, growth for as many, 8 x 8 to the end.
    assert run.milestones() == {20: "4 x 4", 26: "8 x 8 begun", 46: "8 x 8 grown"}
    ((size, found),) = benchmark.growths(run, faces).items()
    assert size == "8 x 8"
    assert found["ratio"] == max(found["begun"]["kid"], found["grown"]["kid"]) / found["before"]["kid"]
    row = benchmark.measured(run, faces, tmp_path / "picture.png")
    assert row["kid"] == pytest.approx(faces.kid(examples.draw(run.model(), 40, seed=0))["kid"])
    assert 0 <= row["known"] <= 1
    assert (tmp_path / "picture.png").exists()


def test_training_pictures_are_copies_and_those_of_people_left_out_are_not(pictures):
    faces = benchmark.Faces(pictures, 400)
    assert faces.copied(faces.train)["copies"] == 1
    held = faces.copied(faces.held)
    assert held["copies"] == held["copies_of_left_out"] < 0.5
