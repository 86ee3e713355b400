"""The command `vaebench`: verbs, help, exit codes. Everything after the verb goes to Hydra.

Exit codes: 0 done, 1 failed, 2 a mistake in the command or the configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vaebench import __version__
from vaebench.cli.encoding import spell_out
from vaebench.cli.errors import DONE, FAILED, INTERRUPTED, MISTAKE
from vaebench.hardware.signals import interruptible
from vaebench.messages import did_you_mean

VERBS = {
    "train": "Train a model; write one run directory.",
    "sample": "Draw samples from a trained run.",
    "evaluate": "Score a trained run, with standard errors.",
    "encode": "Write the latents of a split of the data.",
    "report": "Compare runs: a table over models, with the spread over seeds.",
    "benchmark": "Train, sample, evaluate and report, for every combination.",
    "sweep": "Look after a sweep: status, watch, resume, cancel, logs.",
    "list": "Show what there is: models, samplers, data sets, metrics, …",
}
HELP = f"""vaebench {__version__}: experiments with variational autoencoders.

usage: vaebench VERB [group=option …] [key=value …] [-m]

{chr(10).join(f"  {verb:<11}{line}" for verb, line in VERBS.items())}

  vaebench train model=rhvae                     one run, on the data that travel with the installation
  vaebench sample sampler=hmc                    from the newest run; from another with run=DIRECTORY
  vaebench evaluate                              numbers for the newest run
  vaebench train -m model=vae,rhvae seed=0,1     every combination
  vaebench benchmark model=vae,iwae seed=0,1     train, sample, evaluate and report each combination
  vaebench train --help                          groups, options and defaults of a verb
  vaebench list models                           one line and the paper of each

Everything after the verb goes to Hydra: --help, --cfg job, --info, -m, --config-dir, --config-name.
VAEBENCH_CONF   folders of your own configurations (separated by '{os.pathsep}'), searched before the built-in ones.
Completion      eval "$(vaebench -sc install=bash)"     (install=zsh; fish: vaebench -sc install=fish | source)
Exit codes      0 done, 1 failed, 2 a mistake in the command or the configuration, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after `vaebench`; those of this process if not given.

    Returns: the exit code.
    """
    spell_out()
    try:
        with interruptible():
            code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:  # closed by the caller: `>&-`
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("vaebench: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # Otherwise Python complains again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, such as `| head`, has closed the pipe
            return DONE
        print(f"vaebench: cannot write the answer: {error.strerror}", file=sys.stderr)
        return FAILED


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return DONE
    first, rest = words[0], words[1:]
    if first in ("--version", "-V"):
        print(f"vaebench {__version__}")
        return DONE
    if first in ("-sc", "--shell-completion"):
        from vaebench.cli import completion

        return completion.answer(rest, list(VERBS))
    if first == "list":
        from vaebench.commands import list as listing

        try:
            listing.main(rest)
        except ValueError as error:
            print(f"vaebench list: {error}", file=sys.stderr)
            return MISTAKE
        return DONE
    if first == "sweep":
        from vaebench.commands import sweep

        try:
            words_to_go_on = sweep.main(rest)
        except ValueError as error:
            print(f"vaebench sweep: {error}", file=sys.stderr)
            return MISTAKE
        if words_to_go_on is None:
            return DONE
        first, *rest = words_to_go_on
    if first in VERBS:
        from vaebench.cli import application

        return application.run(first, rest)
    if first.startswith("-") or "=" in first:
        problem = (
            f"'{first}' stands before the verb; write: vaebench VERB {' '.join(words)} (verbs: {', '.join(VERBS)})"
        )
    else:
        problem = f"there is no verb '{first}'{did_you_mean(first, VERBS)}"
    print(f"vaebench: {problem}", file=sys.stderr)
    return MISTAKE
