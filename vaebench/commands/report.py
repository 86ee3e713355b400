"""`vaebench report`: compare the results of runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from vaebench import __version__
from vaebench.report import cells, files, page, reading, table
from vaebench.report.grouping import make_sections
from vaebench.runs.files import refuse_unwritable
from vaebench.runs.run import write_atomic, write_json

# Checked here, because `vaebench.factory` imports torch.
KINDS = {"output": (str,), "sort_by": (str, type(None)), "descending": (bool, type(None))}
WORDS = {"output": "a folder", "sort_by": "the name of a column, or null", "descending": "true, false or null"}
OF_A_SEARCH = ("history.png", "parallel_coordinates.png", "pareto.png")  # beside the record of its sweep
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> None:
    """Read runs, print a table for each data set, and write the report."""
    for key, kinds in KINDS.items():
        if not isinstance(cfg[key], kinds) or cfg[key] == "":
            raise ValueError(f"{key}: expected {WORDS[key]}, got {cfg[key]!r}")
    refuse_unwritable(cfg.output, "output")
    places = [cfg.run] if isinstance(cfg.run, str) else ["outputs"] if cfg.run is None else list(cfg.run)
    records = [reading.read_run(path) for path in reading.find_runs(places)]
    problems = [record for record in records if record.problem is not None]
    readable = [record for record in records if record.problem is None]
    sections = make_sections(readable, cfg.sort_by, cfg.descending)

    folder = Path(cfg.output)
    write_atomic(folder / "report.html", page.render(sections, problems, __version__, pictures_of_searches(places)))
    write_json(folder / "report.json", files.as_json(sections, problems))
    write_atomic(folder / "report.csv", files.as_csv(sections))
    write_atomic(folder / "report.md", files.as_markdown(sections, problems))

    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for section in sections:
        table.print_section(section, console)
    if sections:
        console.print(Text(files.LEGEND))
    for record in problems:
        console.print(Text(f"not readable: {cells.clean(record.path, 200)}: {cells.clean(record.problem, 300)}"))
    for record in readable:
        for note in record.notes:
            console.print(Text(f"{cells.clean(record.path, 200)}: {cells.clean(note, 300)}"))
    console.print(Text(f"{folder / 'report.html'}"))


def pictures_of_searches(places: Sequence[str]) -> list[Path]:
    """Return the pictures that searches left in the folders that are named."""
    folders = [Path(place) for place in places if (Path(place) / "sweep.json").is_file()]
    return [folder / name for folder in folders for name in OF_A_SEARCH if (folder / name).is_file()]
