"""The exception for input that the user can correct; printable text, described errors, suggested names."""

import re
import traceback
from collections.abc import Iterable
from difflib import SequenceMatcher


class AutoReIDError(ValueError):
    """Invalid input: a file, field, shape or label that the user can correct.

    The message is one line: what was wrong, what was expected, what to do. The command line prints it
    without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message with unprintable characters escaped, such as newlines in file names."""
        return printable(super().__str__())


def printable(text: str) -> str:
    r"""Escape what cannot be printed on one line: newlines, terminal codes, bytes that are not UTF-8.

    Examples:
        >>> print(printable("photo\x1b[2J.jpg"))
        photo\x1b[2J.jpg
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def describe_error(error: BaseException, file: str | None = None) -> str:
    """Describe an exception in one line: its type, its message, and its line in ``file`` if one is given."""
    message = next(iter(str(error).splitlines()), "")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" in {file}, line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


SIMILAR = 0.6
"""Similarity of two names from which one is suggested for the other, as in difflib."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known names that are most similar to ``name``: "did you mean resnet50?".

    Case, dashes and underscores do not matter; initials (``lr``) and beginnings stand for the whole. Of a
    dotted name (``data.root``) the part after the last dot is compared with those of the same section.

    Returns:
        The suggestion, or an empty string if no name is similar.

    Examples:
        >>> did_you_mean("ResNet50", ["resnet18", "resnet50", "darts_v1"])
        'did you mean resnet50?'
        >>> did_you_mean("--lr", ["--batch.images", "--omega.learning-rate", "--alpha.learning-rate"])
        'did you mean --omega.learning-rate or --alpha.learning-rate?'
        >>> did_you_mean("data.workers", ["data.root", "data.kind"])
        ''
    """
    scores = {other: _similarity(name, other) for other in known}
    best = max(scores.values(), default=0.0)
    near = [other for other, score in scores.items() if score == best] if best >= SIMILAR else []
    return f"did you mean {' or '.join(near[:3])}?" if near else ""


def _similarity(name: str, other: str) -> float:
    """From 0 to 1, which means that the names differ at most by case, dashes or initials."""
    (section, last), (other_section, other_last) = _sectioned(name), _sectioned(other)
    if bool(section) == bool(other_section):
        return min(_ratio(section, other_section), _ratio(last, other_last))
    whole = _ratio(f"{section}_{last}".strip("_"), f"{other_section}_{other_last}".strip("_"))
    return max(whole, 0.99 * _ratio(last, other_last))


def _sectioned(name: str) -> tuple[str, str]:
    section, _, last = name.strip("-").lower().replace("-", "_").rpartition(".")
    return section, last


def _ratio(one: str, other: str) -> float:
    initials = "".join(word[0] for word in re.findall("[a-z0-9]+", other))
    if one == initials and len(one) > 1:
        return 1.0
    ratio = SequenceMatcher(None, one, other).ratio()
    return max(ratio, SIMILAR) if other.startswith(one) and len(one) > 2 else ratio
