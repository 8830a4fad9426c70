"""What the benchmark of the GAN takes for held, on made-up numbers."""

import gan as benchmark
import pytest


@pytest.mark.parametrize(
    ("frechet", "flagged", "held"),
    [
        ([2.0] * 20, [], True),
        ([2.0] * 19 + [2.99], [], True),
        ([2.0] * 19 + [3.01], [], False),
        ([2.0] * 19 + [3.01], [19], True),
        ([2.0] * 19 + [float("nan")], [], False),
        ([2.0] * 17 + [9.0] * 3, [17, 18, 19], False),
        # A flag on a good run counts among the two.
        ([2.0] * 20, [0, 1, 2], False),
    ],
)
def test_seeds_are_near_the_median_or_flagged(frechet, flagged, held):
    found = benchmark.outliers(frechet, [i in flagged for i in range(len(frechet))])
    assert found["held"] is held
    assert found["flagged"] == flagged


def test_targets_are_bounds_on_the_right_side():
    target = benchmark.SYSTEMS["10 minutes"].target
    assert benchmark.kept({"ratio": 0.5, "coverage": 0.7}, target)
    assert not benchmark.kept({"ratio": 0.51, "coverage": 0.9}, target)
    assert not benchmark.kept({"ratio": 0.1, "coverage": 0.69}, target)


def test_only_an_idle_clock_says_how_many_rounds_there_are():
    clocked = [{"rounds": 100, "by_the_clock": True}, {"rounds": 200, "by_the_clock": True}]
    counted = {"rounds": 900, "by_the_clock": False}
    assert benchmark.idle_rounds([*clocked, counted]) == 150
    assert benchmark.idle_rounds([counted]) is None
