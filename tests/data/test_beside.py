import time

import pytest

from src.data.encoding import Beside


def test_calls_run_in_order_and_are_done_when_the_block_ends():
    seen = []
    with Beside() as beside:
        for number in range(50):
            beside.call(lambda n: (time.sleep(0.0002), seen.append(n)), number)
    assert seen == list(range(50))


def test_what_a_call_raises_is_not_lost_be_it_the_last_one():
    with pytest.raises(OSError, match="disk full"), Beside() as beside:
        beside.call(fail)


def test_a_failure_ends_the_work_soon_after_it():
    done = []

    def work():
        with Beside() as beside:
            beside.call(fail)
            for number in range(100):
                beside.call(done.append, number)

    with pytest.raises(OSError, match="disk full"):
        work()
    assert len(done) < 10


def fail():
    raise OSError("disk full")
