"""Each fault of the table can be applied to the current code, and its tests exist."""

from __future__ import annotations

import json
import re

import pytest
from mutations.__main__ import main
from mutations.fault import complaint, fault, missing_tests
from mutations.faults import FAULTS
from mutations.running import run_all

LEAST = dict.fromkeys(range(1, 18), 2) | {13: 3}
"""The least number of faults in the table against each law."""


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: one.where)
def test_each_fault_can_be_applied_and_its_tests_exist(one):
    assert complaint(one) is None
    assert one.tests
    assert missing_tests(one) == []


def test_the_table_is_large_and_has_no_duplicates():
    assert len({one.what for one in FAULTS}) == len(FAULTS)
    assert len({(one.file, one.old, one.new) for one in FAULTS}) == len(FAULTS)
    assert len(FAULTS) >= 120


@pytest.mark.parametrize("law", LEAST)
def test_each_law_has_faults_against_it(law):
    assert sum(bool(re.match(rf"law {law}:", one.what)) for one in FAULTS) >= LEAST[law]


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        ("errors.py", "no such text", "", "trio_rpc/errors.py has the text of this fault 0 times"),
        ("errors.py", "class ", "klass ", "times, not once (lines "),
        ("errors.py", "class RpcError", "klass RpcError", "does not compile"),
        ("errors.py", "class RpcError", "class RpcError", "nothing is replaced"),
        ("no_file.py", "a", "b", "there is no file trio_rpc/no_file.py"),
    ],
)
def test_a_stale_fault_is_reported_with_file_and_line(file, old, new, text):
    text_found = complaint(fault("a fault", file, old, new, "test_mutations.py"))
    assert re.match(r"tests/test_mutations\.py:\d+: ", text_found)
    assert text in text_found


def test_a_missing_test_of_a_fault_is_found():
    here = "test_mutations.py::test_a_missing_test_of_a_fault_is_found"
    one = fault("a fault", "errors.py", "a", "b", here, "test_mutations.py::nothing", "nothing.py")
    assert missing_tests(one) == ["test_mutations.py::nothing", "nothing.py"]


def test_listing_with_a_seed_is_reproducible(capsys):
    drawn = []
    for _ in range(2):
        assert main(["--list", "--json", "--count", "3", "--seed", "7"]) == 0
        drawn.append(json.loads(capsys.readouterr().out))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 3
    assert main(["--list", "--file", "no such file"]) == 2


async def test_a_fault_is_noticed_or_survives_and_the_checkout_stays_as_it_was():
    test = "wire/test_wire_registry.py::test_registered_classes_can_be_sent"
    noticed = fault("noticed", "wire/registry.py", "LAST_TAG = 127", "LAST_TAG = 126", test)
    survives = fault("survives", "wire/registry.py", '"""Your own classes', '"""Your classes', test)
    reported = []
    outcomes = await run_all([noticed, survives], workers=1, seconds=60, report=reported.append)
    assert [each.kind for each in outcomes] == ["noticed", "survived"]
    assert outcomes[0].by == test
    assert reported == outcomes
    assert complaint(noticed) is None
