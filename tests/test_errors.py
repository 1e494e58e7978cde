"""Suggestions of similar names, and one-line descriptions of users' errors."""

import pytest

from autoreid_fast.errors import describe_error, did_you_mean

OPTIONS = [
    "--batch.identities",
    "--batch.images",
    "--learning-rate",
    "--data.root",
    "--data.kind",
    "--epochs",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--lr", "--learning-rate"),
        ("--learning_rat", "--learning-rate"),
        ("--batch-size", "--batch.images"),
        ("--root", "--data.root"),
        ("--datset.root", "--data.root"),
        ("--data.knd", "--data.kind"),
        ("--Epoch", "--epochs"),
        ("--learn", "--learning-rate"),
    ],
)
def test_the_most_similar_name(name: str, expected: str) -> None:
    assert did_you_mean(name, OPTIONS) == f"did you mean {expected}?"


@pytest.mark.parametrize("name", ["--data.workers", "--device", "--data.height", "", "--", "x"])
def test_nothing_similar(name: str) -> None:
    assert did_you_mean(name, OPTIONS) == ""


def test_case_and_equal_matches() -> None:
    assert did_you_mean("DARTS-V2", ["darts_v1", "darts_v2"]) == "did you mean darts_v2?"
    assert did_you_mean("gdas_v3", ["gdas_v1", "gdas_v2"]) == "did you mean gdas_v1 or gdas_v2?"
    assert did_you_mean("anything", []) == ""


def test_an_error_in_one_line() -> None:
    def fail() -> None:
        raise ValueError("first\nsecond")

    with pytest.raises(ValueError) as caught:
        fail()
    assert describe_error(caught.value) == "ValueError: first"
    line = fail.__code__.co_firstlineno + 1
    assert describe_error(caught.value, __file__) == f"ValueError: first in {__file__}, line {line}"
    assert describe_error(KeyError()) == "KeyError"
