"""Mistakes in the configurations of jobs, found before the first one starts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from vaebench.hardware.interpreter import run_module
from vaebench.messages import counted


def examine(question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a process of its own, since the answer needs torch; see `vaebench.sweeps.check.examine`.

    Raises:
        ValueError: the first mistake.
    """
    check = run_module("vaebench.sweeps.check")
    done = subprocess.run(check, input=json.dumps(question), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the jobs could not be checked: {done.stderr.strip()[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    refuse_mistakes(answer["mistakes"])
    return answer


def mistakes_here(jobs: Sequence[Any]) -> list[list[Any]]:
    """Ask this process, in which the jobs will run."""
    from vaebench.sweeps.check import mistakes

    return mistakes(jobs)


def refuse_mistakes(found: Sequence[Sequence[Any]]) -> None:
    """Raise the first mistake, with the job.

    Raises:
        ValueError: there is one.
    """
    if found:
        number, overrides, sentence = found[0]
        which = " ".join(overrides) if number is None else f"job {number} ({' '.join(overrides)})"
        more = f" (and {counted(len(found) - 1, 'more job')})" if len(found) > 1 else ""
        raise ValueError(f"{which}{': ' if which else ''}{sentence}{more}")
