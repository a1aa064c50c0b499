"""Regular expressions of users, checked before they run on the agent's thread.

Python's `re` goes back and tries again: one repeat inside another can take longer than the agent lives, on one text.
"""

import re
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

FEW_REPEATS = 100
"""`(?:\\d{1,3}\\.){3}` is a repeat inside a repeat as well, but tries no more than nine ways."""
_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT)


class PatternError(ValueError):
    """A pattern that is not used. The message does not show it: it may be the secret itself."""


def checked(pattern: str, number: int) -> re.Pattern[str]:
    """The pattern, compiled. Raises PatternError."""
    if not isinstance(pattern, str):
        raise PatternError(f"pattern {number} is a {type(pattern).__name__}; expected a regular expression as text")
    try:
        compiled = re.compile(pattern)
        parsed = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"pattern {number} is no regular expression: {type(error).__name__}") from error
    if _explodes(parsed):
        raise PatternError(
            f"pattern {number} has a repeat, or options that may begin alike, inside a repeat, which can take for "
            "ever; make the inner one possessive (`\\w++`), or write it without"
        )
    if compiled.search(""):
        raise PatternError(f"pattern {number} matches the empty text, which is everywhere; make it narrower")
    return compiled


def _explodes(parsed: Any, around: int = 1) -> bool:
    """Whether one text could be matched in very many ways. `around` is how often the repeats around may run."""
    for op, argument in parsed:
        if op in _REPEATS:
            low, high, body = argument
            if around > 1 and low != high and around * high > FEW_REPEATS:
                return True
            if _explodes(body, around * max(int(high), 1)):
                return True
        elif op is ops.BRANCH:
            options = argument[1]
            if around > FEW_REPEATS and not _begin_apart(options):
                return True
            if any(_explodes(option, around) for option in options):
                return True
        elif op is ops.SUBPATTERN:
            if _explodes(argument[-1], around):
                return True
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            if _explodes(argument[1], around):
                return True
        elif op is ops.GROUPREF_EXISTS:
            if any(option is not None and _explodes(option, around) for option in argument[1:]):
                return True
        elif op in (ops.POSSESSIVE_REPEAT, ops.ATOMIC_GROUP):
            body = argument[2] if op is ops.POSSESSIVE_REPEAT else argument
            if _explodes(body):  # what it has matched is never tried again
                return True
    return False


def _begin_apart(options: Any) -> bool:
    """Whether every option begins with a letter of its own, so that only one can match."""
    starts = [option[0][1] if len(option) and option[0][0] is ops.LITERAL else None for option in options]
    return None not in starts and len(set(starts)) == len(starts)
