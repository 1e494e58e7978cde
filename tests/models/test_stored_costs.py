"""Stored costs are the counted ones."""

from autoreid_fast.models.stored_costs import count_all, stored_costs


def test_stored_costs_are_up_to_date() -> None:
    assert stored_costs() == count_all(), "python -m autoreid_fast.models.stored_costs writes them again"
