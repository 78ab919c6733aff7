from __future__ import annotations

from headwater_storage.readers import OldReader, ReaderAges

ONE, TWO = OldReader(10, 1), OldReader(11, 1)


def test_ages_count_from_the_first_look_and_end_with_the_reader() -> None:
    ages = ReaderAges(step_s=2.0)
    assert ages.look([ONE], 100.0) == {ONE: 0.0}
    assert ages.look([ONE, TWO], 101.0) == {ONE: 1.0, TWO: 0.0}
    assert ages.look([TWO], 102.5) == {TWO: 1.5}
    assert ages.look([ONE, TWO], 103.0) == {ONE: 0.0, TWO: 2.0}


def test_a_daemon_that_stood_still_counts_one_step() -> None:
    ages = ReaderAges(step_s=2.0)
    ages.look([ONE], 100.0)
    assert ages.look([ONE], 500.0) == {ONE: 2.0}
