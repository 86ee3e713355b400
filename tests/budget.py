"""Processor time of every test, added up for each option of conf/ and each folder of tests.

Time on the clock says how busy a machine is; processor time says what a test costs. Children count once they are waited
for, so that a test that starts commands or processes pays for them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from vaebench.factory.configurations import conf_dir, options

RECORD = "vaebench/processor_seconds"  # in pytest's cache: seconds by test of the last run of the whole suite
NUM_SHOWN = 25
WIDTH = 120
GROUPS = {  # of the options that the tests of a room are about
    "data": ("dataset",),
    "distributions": ("model/likelihood", "model/posterior", "model/prior"),
    "energies": ("target",),
    "hardware": ("hardware",),
    "mcmc": ("kernel", "target"),
    "metrics": ("metric",),
    "models": ("model",),
    "networks": ("model/network",),
    "samplers": ("sampler", "target"),
    "trainers": ("trainer", "callback"),
}


def spent() -> float:
    """Seconds of processor time of this process and of the children that it waited for."""
    return sum(os.times()[:4])


class Budget:
    """The plugin: workers measure, the process that prints adds up."""

    def __init__(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self.seconds: Counter[str] = Counter()
        self._since = spent()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Begin to measure with the first fixture."""
        self._since = spent()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Store what set-up, call or tear-down took; a worker sends it along with the report."""
        report = yield
        now = spent()
        report.processor_seconds, self._since = now - self._since, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up."""
        self.seconds[report.nodeid] += getattr(report, "processor_seconds", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Show the table after a run of the whole suite, and keep it for scripts/test_budget.py."""
        if not self.is_whole or not self.seconds:
            return
        if getattr(config, "cache", None) is not None:
            config.cache.set(RECORD, dict(self.seconds))
        terminalreporter.section("processor time")
        for line in table(self.seconds, NUM_SHOWN):
            terminalreporter.write_line(line)


@cache
def known_options() -> dict[str, list[str]]:
    """The options of every group of conf/."""
    return options([conf_dir()])


def option_of(nodeid: str) -> str | None:
    """The option that a test is about: a parameter names it, or the file."""
    path, _, name = nodeid.partition("::")
    words = re.split(r"[-\[\]]", name)[1:]
    for word in words:
        group, _, option = word.removesuffix(".yaml").rpartition("/")
        if option in known_options().get(group, ()):
            return f"{group}={option}"
    stem = Path(path).stem.removeprefix("test_")
    room = stem if stem in GROUPS else next((part for part in Path(path).parts[1:-1] if part in GROUPS), None)
    for word in (*words, stem) if room else ():
        for group in GROUPS[room]:
            if word in known_options().get(group, ()):
                return f"{group}={word}"
    return None


def by_option(seconds: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Seconds and number of tests for each option, dearest first."""
    total, count = Counter[str](), Counter[str]()
    for nodeid, value in seconds.items():
        if option := option_of(nodeid):
            total[option] += value
            count[option] += 1
    return {option: (value, count[option]) for option, value in total.most_common()}


def table(seconds: Mapping[str, float], num_shown: int | None = None) -> list[str]:
    """Lines: the total, folders, options and single tests, dearest first; at most `num_shown` of each."""
    folders = Counter[str]()
    for nodeid, value in seconds.items():
        folders["/".join(nodeid.partition("::")[0].split("/")[:2])] += value
    found = by_option(seconds)
    lines = [f"{sum(seconds.values()):8.1f} s in {len(seconds)} tests"]
    lines += [f"{value:8.1f} s  {folder}" for folder, value in folders.most_common(num_shown)]
    lines += ["", f"{sum(value for value, _ in found.values()):8.1f} s for {len(found)} options, dearest first"]
    lines += [f"{value:8.1f} s  {option} ({count} tests)" for option, (value, count) in list(found.items())[:num_shown]]
    dearest = sorted(seconds.items(), key=lambda entry: -entry[1])[:num_shown]
    return [*lines, "", "tests, dearest first", *(f"{value:8.1f} s  {nodeid[:WIDTH]}" for nodeid, value in dearest)]


def last_run(root: Path) -> dict[str, float]:
    """What the last run of the whole suite recorded.

    Raises:
        ValueError: there was none.
    """
    file = root / ".pytest_cache" / "v" / RECORD
    if not file.is_file():
        raise ValueError(f"'{file}' is missing; run the whole suite first: python -m pytest")
    return json.loads(file.read_text())
