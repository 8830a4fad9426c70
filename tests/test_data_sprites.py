"""Sprites: each factor changes what its name says and nothing else, parts share no image, values belong to their images."""

import itertools

import numpy as np
import pytest
import torch
from test_data_support import parts

from pofx import data
from pofx.core import Classes, UsageError
from pofx.data import Options, sprites

NAMES = tuple(sprites.FACTORS)
SIZES = tuple(sprites.FACTORS.values())
MIDDLE = {"shape": 0, "scale": 3, "rotation": 1, "position x": 3, "position y": 4, "colour": 0}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(sprites, "PARTS", (300, 20, 50))


def draw(**changed):
    """The image of the middle values with some changed, as floats (3, 32, 32)."""
    values = MIDDLE | {name.replace("_", " "): value for name, value in changed.items()}
    return sprites.draw(np.array([[values[name] for name in NAMES]]))[0].astype(np.float64)


def coverage(image):
    """How much of each pixel is covered: the brightest channel, which no colour changes."""
    return image.max(0) / 255


def centre(image):
    mask = coverage(image)
    place = np.arange(32) + 0.5
    return np.array([(mask.sum(0) * place).sum(), (mask.sum(1) * place).sum()]) / mask.sum()


def test_parts_are_as_long_as_promised_and_share_no_image():
    dataset = data.load("sprites")
    assert [len(part) for part in parts(dataset)] == [20_000, 2000, 5000]
    factors = dataset.factors
    assert (factors.names, factors.sizes) == (NAMES, SIZES)
    everywhere = np.concatenate([factors.train, factors.validation, factors.test])
    assert len(np.unique(np.ravel_multi_index(tuple(everywhere.T), SIZES))) == 27_000
    # Each value of each factor is as likely as any other: 5 standard errors of 27,000 draws.
    for column, size in zip(everywhere.T, SIZES, strict=True):
        share = np.bincount(column, minlength=size) / len(column)
        assert np.abs(share - 1 / size).max() < 5 * np.sqrt(1 / size / len(column))


def test_values_belong_to_their_images_and_labels(small):
    dataset = data.load("sprites")
    assert dataset.spec.label == Classes(("arrow", "drop", "heart"))
    for name, part in zip(("train", "validation", "test"), parts(dataset), strict=True):
        batch = part.batch(torch.arange(len(part)))
        values = getattr(dataset.factors, name)
        assert torch.equal(dataset.factors.render(values), batch.x)
        assert batch.label.tolist() == values[:, 0].tolist()


def test_the_seed_decides(small):
    one, same, other = (data.load("sprites", data.Options(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.train.x, same.train.x)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(one.train.x, other.train.x)


@pytest.mark.parametrize(("axis", "name"), [(2, "position x"), (1, "position y")])
@pytest.mark.parametrize("shape", range(3))
def test_position_shifts_every_pixel_by_two(axis, name, shape):
    images = [draw(shape=shape, scale=5, **{name: i}) for i in range(8)]
    for left, right in itertools.pairwise(images):
        # Nothing leaves the picture, so that the shift brings nothing back on the other side.
        assert np.array_equal(np.roll(left, 2, axis), right)
    moved = centre(images[7]) - centre(images[0])
    assert moved == pytest.approx([14, 0] if axis == 2 else [0, 14])


def test_colour_changes_the_hue_alone():
    images = [draw(colour=i) for i in range(6)]
    for image in images:
        assert np.array_equal(coverage(image), coverage(images[0]))
        # The darkest channel says the saturation.
        assert np.array_equal(image.min(0), images[0].min(0))
    inside = np.unravel_index(coverage(images[0]).argmax(), (32, 32))
    assert len({tuple(image[:, *inside]) for image in images}) == 6


@pytest.mark.parametrize("shape", range(3))
def test_rotation_turns_about_the_centre_of_mass(shape):
    images = [draw(shape=shape, rotation=i) for i in range(8)]
    for image in images:
        assert centre(image) == pytest.approx(centre(images[0]), abs=0.1)
        assert coverage(image).sum() == pytest.approx(coverage(images[0]).sum(), rel=0.03)
    window = np.s_[:, 8:26, 6:24]
    for i in range(8):
        # Two steps are a quarter turn, clockwise.
        assert np.abs(np.rot90(images[i][window], -1, (1, 2)) - images[(i + 2) % 8][window]).max() < 10


def test_all_shapes_scales_and_rotations_are_different_pictures():
    values = np.array([[*of, 3, 4, 0] for of in itertools.product(*map(range, SIZES[:3]))])
    flat = sprites.draw(values).reshape(len(values), -1).astype(np.float32)
    distance = np.abs(flat[:, None] - flat[None]).max(2) + 255 * np.eye(len(flat))
    assert distance.min() > 50


@pytest.mark.parametrize("shape", range(3))
def test_scale_changes_the_size_alone(shape):
    images = [draw(shape=shape, scale=i) for i in range(6)]
    areas = np.array([coverage(image).sum() for image in images])
    # Areas go as squares of lengths.
    assert areas / areas[-1] == pytest.approx((sprites.RADII / sprites.RADII[-1]) ** 2, rel=0.03)
    for image in images:
        assert centre(image) == pytest.approx(centre(images[0]), abs=0.1)


def test_resized_images_are_rendered_alike(small):
    first = data.load("sprites", Options(size="16x20"))
    again = data.load("sprites", codec=first.codec)
    for dataset in (first, again):
        assert dataset.factors.render(dataset.factors.test[:5]).shape == (5, 3, 16, 20)
        assert torch.equal(dataset.factors.render(dataset.factors.test), dataset.test.batch(torch.arange(50)).x)


def test_other_ways_to_read_them(small):
    whole = data.load("sprites", Options(validation=0.0))
    assert whole.factors.validation is None
    assert torch.equal(whole.factors.render(whole.factors.train), whole.train.batch(torch.arange(320)).x)
    # As standardised vectors they are not what `render` draws.
    assert data.load("sprites", Options(kind="vectors")).factors is None


@pytest.mark.parametrize("values", [np.zeros((2, 5), int), np.zeros((2, 6)), np.full((1, 6), 8), np.full((1, 6), -1), np.zeros(6, int)])
def test_values_that_there_are_not(values):
    with pytest.raises(UsageError, match="factor values"):
        sprites.draw(values)
