"""The errors a caller may want to catch, as a tree.

    HdrmergeError            every error this package raises on purpose: one line, exit code 1
    |-- InputError           a file that cannot be used: missing, truncated, not an image
    |-- ExposureError        exposures that are missing, unusable or contradict each other
    |-- BracketError         files that are fine one by one and do not form a bracket
    |-- NetworkError         weights that are missing or damaged, no engine to run them, too little memory
    `-- OutputError          a target that cannot be written, or exists already

Every message names the file, what was found, and what to do about it. Anything else that escapes
is a bug and keeps its traceback.
"""

from __future__ import annotations


class HdrmergeError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is a complete one-line message."""


class InputError(HdrmergeError):
    """A file cannot be used as input."""


class ExposureError(HdrmergeError):
    """The exposure of one or more frames is missing or makes no sense."""


class BracketError(HdrmergeError):
    """The files do not form one bracket."""


class NetworkError(HdrmergeError):
    """A network cannot be found, trusted, or run on this machine."""


class OutputError(HdrmergeError):
    """The result cannot be written where it was asked for."""
