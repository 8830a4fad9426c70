"""Data sets for games that the monitor is tried on, each a function of a random generator: points of few numbers, and small images."""

import numpy as np


def _moons(random: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import make_moons

    return (2 * make_moons(20_000, noise=0.05, random_state=0)[0]).astype(np.float32)


def _blobs(random: np.random.Generator) -> np.ndarray:
    """12 Gaussians in ten dimensions."""
    centres = 2 * random.standard_normal((12, 10))
    return (centres[random.integers(12, size=20_000)] + 0.3 * random.standard_normal((20_000, 10))).astype(np.float32)


def _strokes(random: np.random.Generator) -> np.ndarray:
    """Grey images of 16 x 16: a soft straight stroke of random place, direction and width."""
    y, x = np.mgrid[:16, :16]
    n = 6000
    angle, width = random.uniform(0, np.pi, (n, 1, 1)), random.uniform(0.7, 2.0, (n, 1, 1))
    cx, cy = random.uniform(4, 11, (2, n, 1, 1))
    across = (x - cx) * np.sin(angle) - (y - cy) * np.cos(angle)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    shade = np.exp(-0.5 * (across / width) ** 2) / (1 + np.exp(2 * (np.abs(along) - 5)))
    return (255 * shade).astype(np.uint8)


def _circles(random: np.random.Generator) -> np.ndarray:
    """Two circles, one in the other."""
    from sklearn.datasets import make_circles

    return (2 * make_circles(20_000, noise=0.03, factor=0.4, random_state=0)[0]).astype(np.float32)


def _spiral(random: np.random.Generator) -> np.ndarray:
    """Two arms that wind around each other."""
    turn = 3 * np.pi * np.sqrt(random.random(20_000))
    arm = np.where(random.random(20_000) < 0.5, 1.0, -1.0)
    x = np.stack((arm * turn * np.cos(turn), arm * turn * np.sin(turn)), 1) / 4
    return (x + 0.06 * random.standard_normal(x.shape)).astype(np.float32)


def _roll(random: np.random.Generator) -> np.ndarray:
    """A rolled-up sheet in three dimensions."""
    from sklearn.datasets import make_swiss_roll

    return (make_swiss_roll(20_000, noise=0.3, random_state=0)[0] / 6).astype(np.float32)


def _clusters(random: np.random.Generator) -> np.ndarray:
    """Seven Gaussians in six dimensions, of unequal shares and widths."""
    centres, width = 2 * random.standard_normal((7, 6)), random.uniform(0.15, 0.6, 7)
    which = random.choice(7, 20_000, p=np.arange(1, 8) / 28)
    return (centres[which] + width[which, None] * random.standard_normal((20_000, 6))).astype(np.float32)


def _discs(random: np.random.Generator) -> np.ndarray:
    """Grey images of 20 x 20: one soft disc or two, of random place, size and shade."""
    y, x = np.mgrid[:20, :20]
    n, image = 6000, np.zeros((6000, 20, 20))
    for shown in (np.ones((n, 1, 1)), random.random((n, 1, 1)) < 0.5):
        cx, cy = random.uniform(5, 15, (2, n, 1, 1))
        radius, shade = random.uniform(2, 5, (n, 1, 1)), random.uniform(0.4, 1, (n, 1, 1))
        disc = shade / (1 + np.exp(2 * (np.hypot(x - cx, y - cy) - radius)))
        image = np.maximum(image, shown * disc)
    return (255 * image).astype(np.uint8)


def _checks(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: a chequered cloth of two random colours, period and offset."""
    y, x = np.mgrid[:16, :16]
    n = 6000
    period, (dx, dy) = random.integers(4, 9, (n, 1, 1)), random.integers(0, 8, (2, n, 1, 1))
    which = ((x + dx) // period + (y + dy) // period) % 2
    colours = random.uniform(0, 255, (2, n, 1, 1, 3))
    return np.where(which[..., None] == 1, colours[0], colours[1]).astype(np.uint8)


def _pinwheel(random: np.random.Generator) -> np.ndarray:
    """Five blades that are bent around the middle."""
    blade = random.integers(5, size=20_000)
    out, across = 1 + 0.3 * random.standard_normal(20_000), 0.1 * random.standard_normal(20_000)
    angle = 2 * np.pi * blade / 5 + 0.25 * np.exp(out)
    x = np.stack((out * np.cos(angle) - across * np.sin(angle), out * np.sin(angle) + across * np.cos(angle)), 1)
    return (2 * x).astype(np.float32)


def _waves(random: np.random.Generator) -> np.ndarray:
    """Sine waves of random height and phase, with noise, read at twelve moments."""
    height, phase = random.uniform(0.5, 2, (20_000, 1)), random.uniform(0, 2 * np.pi, (20_000, 1))
    x = height * np.sin(np.linspace(0, 3 * np.pi, 12) + phase)
    return (x + 0.1 * random.standard_normal(x.shape)).astype(np.float32)


def _torus(random: np.random.Generator) -> np.ndarray:
    """The surface of a ring in three dimensions."""
    around, within = random.uniform(0, 2 * np.pi, (2, 20_000))
    across = 2 + 0.8 * np.cos(within)
    x = np.stack((across * np.cos(around), across * np.sin(around), 0.8 * np.sin(within)), 1)
    return (x + 0.05 * random.standard_normal(x.shape)).astype(np.float32)


def _regression(random: np.random.Generator) -> np.ndarray:
    """Five independent uniform numbers and what Friedman's first function makes of them."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(20_000, n_features=5, noise=0.5, random_state=0)
    return np.column_stack((x, y)).astype(np.float32)


def _rainbows(random: np.random.Generator) -> np.ndarray:
    """Colour images of 24 x 24: a smooth change from one random colour to another, in a random direction."""
    y, x = np.mgrid[:24, :24] / 23 - 0.5
    n = 6000
    angle, sharp = random.uniform(0, 2 * np.pi, (n, 1, 1)), random.uniform(2, 12, (n, 1, 1))
    share = 1 / (1 + np.exp(-sharp * (x * np.cos(angle) + y * np.sin(angle))))[..., None]
    colours = random.uniform(0, 255, (2, n, 1, 1, 3))
    return (share * colours[0] + (1 - share) * colours[1]).astype(np.uint8)


def _polygons(random: np.random.Generator) -> np.ndarray:
    """Grey images of 28 x 28: the soft outline of a regular polygon of three to six corners, of random size, place and direction."""
    y, x = np.mgrid[:28, :28]
    n = 6000
    corners, turn = random.integers(3, 7, (n, 1, 1)), random.uniform(0, 2 * np.pi, (n, 1, 1))
    cx, cy = random.uniform(11, 16, (2, n, 1, 1))
    radius = random.uniform(5, 9, (n, 1, 1))
    side = 2 * np.pi / corners
    angle = (np.arctan2(y - cy, x - cx) + turn) % side - side / 2
    off = np.hypot(x - cx, y - cy) * np.cos(angle) - radius * np.cos(side / 2)
    return (255 * np.exp(-0.5 * off**2)).astype(np.uint8)


def _lissajous(random: np.random.Generator) -> np.ndarray:
    """A closed curve in the plane that crosses itself."""
    turn = random.uniform(0, 2 * np.pi, 20_000)
    x = np.stack((2 * np.sin(3 * turn), 2 * np.sin(2 * turn + 0.7)), 1)
    return (x + 0.05 * random.standard_normal(x.shape)).astype(np.float32)


def _stairs(random: np.random.Generator) -> np.ndarray:
    """Six flat steps, the lower ones trodden more often."""
    step = random.choice(6, 20_000, p=np.arange(6, 0, -1) / 21)
    x = np.stack((step + random.uniform(0, 1, 20_000), 0.7 * step + 0.04 * random.standard_normal(20_000)), 1)
    return (x - 2).astype(np.float32)


def _shell(random: np.random.Generator) -> np.ndarray:
    """The surface of a ball in four dimensions."""
    x = random.standard_normal((20_000, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (2 * x * (1 + 0.03 * random.standard_normal((20_000, 1)))).astype(np.float32)


def _walks(random: np.random.Generator) -> np.ndarray:
    """Walks of ten random strides."""
    return (0.5 * random.standard_t(5, (20_000, 10)).cumsum(1)).astype(np.float32)


def _photographs(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: pieces of the two photographs that come with scikit-learn, half as large."""
    from sklearn.datasets import load_sample_images

    pieces = []
    for photograph in load_sample_images().images:
        small = photograph[: len(photograph) // 2 * 2].reshape(-1, 2, 320, 2, 3).mean((1, 3))
        tops, lefts = random.integers(len(small) - 16, size=3000), random.integers(320 - 16, size=3000)
        pieces += [small[top : top + 16, left : left + 16] for top, left in zip(tops, lefts, strict=True)]
    return random.permutation(np.array(pieces).astype(np.uint8))


def _crosses(random: np.random.Generator) -> np.ndarray:
    """Grey images of 18 x 18: two soft bars of random length that cross at right angles."""
    y, x = np.mgrid[:18, :18]
    n = 6000
    angle = random.uniform(0, np.pi / 2, (n, 1, 1))
    cx, cy = random.uniform(6, 11, (2, n, 1, 1))
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    image = np.zeros((n, 18, 18))
    for of, off in ((along, across), (across, along)):
        image = np.maximum(image, np.exp(-0.5 * off**2) / (1 + np.exp(2 * (np.abs(of) - random.uniform(2, 6, (n, 1, 1))))))
    return (255 * image).astype(np.uint8)


def _rose(random: np.random.Generator) -> np.ndarray:
    """A flower of five petals, drawn with a thin line."""
    turn = random.uniform(0, np.pi, 20_000)
    out = 2.5 * np.cos(5 * turn)
    x = np.stack((out * np.cos(turn), out * np.sin(turn)), 1)
    return (x + 0.04 * random.standard_normal(x.shape)).astype(np.float32)


def _banana(random: np.random.Generator) -> np.ndarray:
    """A bent Gaussian beside a round one that is a quarter as frequent."""
    x = random.standard_normal((20_000, 2))
    x[:, 1] = 0.4 * x[:, 1] + x[:, 0] ** 2 - 1
    far = random.random(20_000) < 0.2
    x[far] = (0.0, 3.0) + 0.3 * random.standard_normal((int(far.sum()), 2))
    return x.astype(np.float32)


def _shares(random: np.random.Generator) -> np.ndarray:
    """Four shares of a whole, most of them small."""
    return (4 * random.dirichlet((0.8, 0.8, 1.5, 3.0), 20_000)).astype(np.float32)


def _series(random: np.random.Generator) -> np.ndarray:
    """Eight steps of an autoregression of second order that swings."""
    x = np.zeros((20_000, 48))
    for t in range(2, 48):
        x[:, t] = 1.4 * x[:, t - 1] - 0.8 * x[:, t - 2] + 0.5 * random.standard_normal(20_000)
    return x[:, -8:].astype(np.float32)


def _gratings(random: np.random.Generator) -> np.ndarray:
    """Grey images of 20 x 20: waves of random direction, length and phase under a soft round window."""
    y, x = np.mgrid[:20, :20] - 9.5
    n = 6000
    angle, phase = random.uniform(0, np.pi, (n, 1, 1)), random.uniform(0, 2 * np.pi, (n, 1, 1))
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / random.uniform(4, 10, (n, 1, 1)) + phase)
    return (127.5 * (1 + wave * np.exp(-(x**2 + y**2) / random.uniform(25, 90, (n, 1, 1))))).astype(np.uint8)


def _mosaics(random: np.random.Generator) -> np.ndarray:
    """Colour images of 16 x 16: four tiles by four, each in one of three colours that differ from picture to picture."""
    n = 6000
    colours, which = random.uniform(0, 255, (n, 3, 3)), random.integers(3, size=(n, 16))
    tiles = np.take_along_axis(colours, which[..., None], 1).reshape(n, 4, 4, 3)
    return tiles.repeat(4, 1).repeat(4, 2).astype(np.uint8)


DRAWN = {
    "moons": _moons, "blobs": _blobs, "strokes": _strokes, "circles": _circles, "spiral": _spiral, "roll": _roll, "clusters": _clusters,
    "discs": _discs, "checks": _checks, "pinwheel": _pinwheel, "waves": _waves, "torus": _torus, "regression": _regression,
    "rainbows": _rainbows, "polygons": _polygons, "lissajous": _lissajous, "stairs": _stairs, "shell": _shell, "walks": _walks,
    "photographs": _photographs, "crosses": _crosses, "rose": _rose, "banana": _banana, "shares": _shares, "series": _series,
    "gratings": _gratings, "mosaics": _mosaics,
}  # fmt: skip
