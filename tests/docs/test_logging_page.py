"""The page about logging lists each logger and each field."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.pages import section, table

import trio_rpc
from trio_rpc.util import rate_limited_log

PAGE = "reference/logging.md"
SOURCES = [path.read_text() for path in Path(trio_rpc.__file__).parent.rglob("*.py")]


def test_each_logger_is_listed():
    used = {name for text in SOURCES for name in re.findall(r'getLogger\("([\w.]+)"\)', text)}
    assert {row[0].strip("`") for row in table(section(PAGE, "The loggers"), "logger")} == used


def test_each_field_is_listed():
    used = {name for text in SOURCES for name in re.findall(r'"(rpc_\w+)": ', text)}
    assert {row[0].strip("`") for row in table(section(PAGE, "The fields"), "attribute")} == used


def test_the_number_of_lines_is_stated():
    assert f"{rate_limited_log.LINES} a minute" in section(PAGE, "How many lines there are")
