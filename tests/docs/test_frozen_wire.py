"""Version 1 of the protocol is frozen: vectors may be added, and none of them may change.

``frozen_vectors.txt`` has one line for each vector of the day on which version 1 was frozen: the
beginning of its hash, its group and its name. Neither that file nor this hash of it changes again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

HERE = Path(__file__).parent
FROZEN = HERE / "frozen_vectors.txt"
DOCS = HERE.parents[1] / "docs"
HASH_OF_FROZEN = "29578e9c200701c2eba1c1a80683d440a6495814a31175cce2fced8f0882875f"

GROUPS = ("values", "decoded only", "messages", "packets", "streams", "exchanges")


def lines_of(vectors):
    """Return the line of each vector."""
    lines = []
    for group in GROUPS:
        for vector in vectors[group]:
            text = json.dumps(vector, sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            lines.append(f"{digest} {group}: {vector['name']}")
    return lines


def test_the_list_of_frozen_vectors_is_that_of_version_1():
    assert hashlib.sha256(FROZEN.read_bytes()).hexdigest() == HASH_OF_FROZEN


def test_no_vector_of_version_1_has_changed():
    now = set(lines_of(json.loads((DOCS / "vectors.json").read_text("utf-8"))))
    frozen = FROZEN.read_text("utf-8").splitlines()
    assert len(frozen) > 300
    assert [line for line in frozen if line not in now] == []


def test_the_page_says_that_version_1_is_frozen():
    assert "Version 1 is **frozen**" in (DOCS / "protocol.md").read_text("utf-8")
    assert json.loads((DOCS / "vectors.json").read_text("utf-8"))["version"] == 1
