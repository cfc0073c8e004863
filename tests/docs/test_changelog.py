"""The changelog has the form of keepachangelog.com, and an entry for the current version."""

from __future__ import annotations

import re

import pytest
from helpers.pages import blocks_of, read

import trio_rpc

CHANGELOG = read("CHANGELOG.md")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
VERSION = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d|Unreleased)")


def headings(level):
    return re.findall(rf"^{'#' * level} (.*)$", CHANGELOG, re.MULTILINE)


def versions():
    """Return (version, date) of each entry that has a version."""
    entries = [each for each in headings(2) if each != "[Unreleased]"]
    matches = [VERSION.fullmatch(each) for each in entries]
    assert all(matches), entries
    return [match.groups() for match in matches]


def test_the_changelog_begins_with_its_title():
    assert CHANGELOG.startswith("# Changelog\n")
    assert headings(2)


def test_changes_use_the_six_headings_of_keepachangelog():
    assert set(headings(3)) <= KINDS
    assert headings(3)


def test_entries_are_newest_first_and_older_ones_have_a_date():
    numbers = [tuple(map(int, version.split("."))) for version, _ in versions()]
    assert numbers == sorted(numbers, reverse=True)
    assert "Unreleased" not in [date for _, date in versions()[1:]]


def test_the_current_version_is_the_newest_entry():
    assert versions()[0][0] == trio_rpc.__version__


@pytest.mark.parametrize("page", ["changelog", "security"])
def test_the_site_includes_the_files_of_the_repository(page):
    [block] = blocks_of(f"docs/{page}.md")
    assert block.language == f"{{include}} ../{page.upper()}.md"
