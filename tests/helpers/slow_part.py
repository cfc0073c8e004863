"""``--slow-part K/N``: run all quick tests, and the K-th of N parts of the slow ones.

Several versions of Python can each run one part, and together they run every slow test.
"""

from __future__ import annotations

import re
from zlib import crc32


def part(text):
    """Return the two numbers of ``K/N``."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(text)
    return int(found[1]), int(found[2])


def is_in_part(item, which):
    """Tell whether a test is quick, or belongs to that part by its name."""
    number, parts = which
    return not item.get_closest_marker("slow") or crc32(item.nodeid.encode()) % parts == number - 1
