"""A benchmark's minutes are those of an idle machine."""

import pytest
from idle import IDLE, budget


def test_an_idle_machine_goes_by_the_clock_and_a_busy_one_by_recorded_rounds():
    assert budget(10, 500, IDLE) == {"minutes": 10}
    assert budget(10, 500, IDLE - 1) == {"steps": 500}
    with pytest.raises(SystemExit, match="busy"):
        budget(10, None, IDLE - 1)
