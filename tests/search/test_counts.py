"""Counts always add up."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from layersearch.search.candidate import State
from layersearch.search.counts import Counts

STATES = list(get_args(State))
ENDS = st.sampled_from([("evaluated", None), ("rejected", "quality"), ("rejected", "stability"), ("failed", "fitness")])


@given(st.lists(st.sampled_from(["screened_out", "duplicate", "in_flight"])), st.lists(ENDS))
def test_asked_is_the_sum_of_the_others(asked: list[State], ends: list[tuple[State, str | None]]) -> None:
    counts = Counts()
    for state in asked:
        counts.add(state)
    for state, stage in ends[: counts["in_flight"]]:
        counts.move("in_flight", state, stage)
    shown = counts.to_json()
    total = shown.pop("asked")
    assert total == len(asked) == sum(shown.pop("rejected").values()) + sum(shown.values())
    assert set(shown) == {"screened_out", "duplicates", "stopped", "failed", "in_flight", "paused", "evaluated"}
    assert sum(counts.rejected.values()) == counts["rejected"]
    assert all(counts[state] >= 0 for state in STATES)
