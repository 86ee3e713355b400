"""Run one verb under Hydra: search path, overrides, help, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import logging
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaebench import __version__
from vaebench.cli.comments import annotated, gathered
from vaebench.cli.errors import DONE, FAILED, MISTAKE, CommandError, JobError, SweepError, explain
from vaebench.cli.overrides import Arranged, arrange
from vaebench.cli.paths import unquoted
from vaebench.cli.repeated import as_primary, is_stored
from vaebench.cli.runs import each_run
from vaebench.cli.sweeps import discard_folder, folder_of, new_folder, refuse_foreign, remove_empty
from vaebench.factory.configurations import (
    ENVIRONMENT,
    conf_dir,
    defaults,
    folders,
    required_keys,
    user_folders,
)
from vaebench.hardware.signals import raise_interrupts
from vaebench.messages import counted, printable
from vaebench.runs.provenance import typed

if TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from omegaconf import DictConfig


WIDTH = 120  # of help in a file or a pipe
WRITES_RUNS = ("train", "benchmark")  # other verbs write into the runs that they read
MAY_SET_MODE = ("hydra.mode", "hydra.searchpath", "hydra=", "hydra/", "--config-dir", "--config-name", "--config-path")


class Task:
    """The function that Hydra calls: once, or once for each job of a sweep.

    Args:
        verb: Name of the module in `vaebench.commands`.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.with_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"  # read before the program sets it itself
        self.flags: list[str] = []  # config folders, for jobs in other processes
        self.num_jobs = 0
        self.failures: list[tuple[int, str]] = []

    def __call__(self, cfg: DictConfig) -> Any:
        """Run one job.

        Raises:
            JobError: a job of a sweep failed; Hydra goes on with the next.
        """
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.num_jobs += 1
        failures: list[tuple[int, str]] = []
        value = None
        parts = self._parts(cfg, failures)
        for part in parts:
            try:
                command = importlib.import_module(f"vaebench.commands.{self.verb}")
                _heed_signals()
                value = command.task(part)
            except Exception as error:
                failures.append(self.describe_error(error))
                if len(parts) > 1:
                    failures[-1] = (failures[-1][0], f"{part.run}: {failures[-1][1]}")
        self.failures += failures
        hydra = HydraConfig.get()
        if not failures or hydra.mode != RunMode.MULTIRUN:
            return value
        job = f"job {hydra.job.num} ({' '.join(hydra.overrides.task)})"
        for _, sentence in failures:
            print(f"vaebench {self.verb}: {job}: {sentence}", file=sys.stderr)
        raise JobError(*failures[0])

    def _check_keys(self, cfg: DictConfig) -> None:
        """Refuse a primary configuration of the user's (`--config-name`) that lacks what the verb reads."""
        present = set(cfg)  # including keys whose value is missing
        absent = [key for key in required_keys(self.verb, folders()) if key not in present]
        if absent:
            raise CommandError(
                f"the configuration has no '{absent[0]}', which vaebench {self.verb} needs; one of your own "
                f"(--config-name) begins with defaults: [{self.verb}, _self_]"
            )

    def _parts(self, cfg: DictConfig, failures: list[tuple[int, str]]) -> list[DictConfig]:
        """One configuration for each run that is named; `report` reads them all at once."""
        try:
            self._check_keys(cfg)
            return [cfg] if self.verb == "report" else each_run(cfg)
        except ValueError as error:
            failures.append(self.describe_error(error))
            return []

    def describe_error(self, error: Exception, *, started: bool = True) -> tuple[int, str]:
        """Return the exit code and the sentence for an error; show its traceback if the user asked for it."""
        if self.with_traceback:
            traceback.print_exception(error)
        try:
            places = folders()
        except ValueError:  # the error is itself about a missing folder
            places = [conf_dir()]
        code, sentence = explain(error, self.verb, places, started=started)
        is_elsewhere = code == FAILED and not self.with_traceback
        return code, printable(sentence) + (_where_the_traceback_is() if is_elsewhere else "")


def run(verb: str, words: list[str]) -> int:
    """Run a verb with the words that follow it.

    Returns: the exit code; for a sweep, that of its worst job.
    """
    if "--version" in words:
        print(f"vaebench {__version__}")
        return DONE
    task = Task(verb)
    sweep: str | None = None
    try:
        register_search_path()
        arranged = arrange(verb, words, folders())
        flags, overrides = arranged.parsed, arranged.overrides
        if flags.multirun and verb not in WRITES_RUNS:
            named = [word.partition("=")[2] for word in overrides if word.lstrip("+").startswith("hydra.sweep.dir=")]
            if not named:
                sweep = new_folder()
                overrides = [*overrides, f"hydra.sweep.dir={sweep}"]
            elif "${" not in named[0]:
                refuse_foreign(Path(unquoted(named[0])))
        task.flags = _where_configurations_lie(flags)
        with typed([f"vaebench {verb}", *words]), _primary(verb, arranged) as words_of_flags:
            call_hydra(f"vaebench {verb}", verb, [*overrides, *words_of_flags], task)
    except JobError as failed:  # a sweep's first failure, already reported
        if isinstance(failed, SweepError):
            print(f"vaebench {verb}: {failed.args[1]}", file=sys.stderr)
        elif not task.failures:  # the job ran in another process, with its own log
            print(f"vaebench {verb}: a job failed: {failed.args[1]}{_where_the_logs_are(failed)}", file=sys.stderr)
        else:
            print(
                f"vaebench {verb}: {len(task.failures)} of {counted(task.num_jobs, 'job')} did not succeed",
                file=sys.stderr,
            )
        return max([failed.code, *(code for code, _ in task.failures)])
    except SystemExit as leaving:  # Hydra has already answered, for example --help
        if leaving.code in (None, DONE):
            return DONE
        return MISTAKE if task.num_jobs == 0 else FAILED
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            raise
        code, sentence = task.describe_error(error, started=False)
        if task.num_jobs == 0:
            discard_folder(error)
        print(f"vaebench {verb}: {sentence}", file=sys.stderr)
        return code
    finally:
        if sweep is not None:
            remove_empty(Path(sweep))
    for _, sentence in task.failures:
        print(f"vaebench {verb}: {sentence}", file=sys.stderr)
    return max((code for code, _ in task.failures), default=0)


@contextlib.contextmanager
def _primary(verb: str, arranged: Arranged) -> Iterator[list[str]]:
    """The flags, in which a run's stored configuration gives way to one that Hydra can begin with."""
    flags = arranged.parsed
    if not is_stored(flags.config_dir, flags.config_name):
        yield arranged.flags
        return
    for word in arranged.overrides:
        group = word.partition("=")[0].lstrip("+~")
        if group in defaults(verb, folders()):
            raise CommandError(f"'{word}': the stored configuration has chosen; change its settings: {group}.KEY=VALUE")
    with as_primary(flags.config_dir, verb, folders()) as folder:
        yield [folder if word == flags.config_dir else word for word in arranged.flags]


def _where_configurations_lie(flags: argparse.Namespace) -> list[str]:
    folder = [] if flags.config_dir is None else ["--config-dir", os.path.abspath(flags.config_dir)]
    return folder if flags.config_name is None else [*folder, "--config-name", flags.config_name]


def _heed_signals() -> None:
    """Now that nothing is being imported: end here if a signal came, without the directory that Hydra has just made."""
    from hydra.core.hydra_config import HydraConfig

    from vaebench.runs.run import Run

    try:
        raise_interrupts()
    except KeyboardInterrupt:
        Run(HydraConfig.get().runtime.output_dir).discard()
        raise


def register_search_path() -> None:
    """Let Hydra search the user's folders before the built-in one, so that they can replace its options."""
    user_folders()  # an error if one is missing; Hydra would only warn
    from hydra.core.plugins import Plugins

    Plugins.instance().register(_search_path_plugin())
    # Hydra finds sweepers only in the namespace package hydra_plugins on sys.path.
    folder = str(Path(__file__).resolve().parents[1] / "_plugins")
    if folder not in sys.path:
        sys.path.append(folder)
    Plugins.instance().register(importlib.import_module("hydra_plugins.vaebench_sweeper").VaebenchSweeper)


@functools.cache
def _search_path_plugin() -> type[SearchPathPlugin]:
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserFolders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in reversed(user_folders()):
                search_path.prepend(provider=ENVIRONMENT, path=f"file://{folder}")

    return UserFolders


def _where_the_logs_are(error: Exception) -> str:
    folder = folder_of(error)
    if folder is None:
        return ""
    own = folder / ".submitit"
    return f" (logs of all jobs: {own / '*' / '*_log.err' if own.is_dir() else folder})"


def _where_the_traceback_is() -> str:
    logs = [handler.baseFilename for handler in logging.root.handlers if isinstance(handler, logging.FileHandler)]
    for log in logs:
        if os.path.exists(log):
            return f" (traceback in {os.path.relpath(log)})"
    return " (for the traceback set HYDRA_FULL_ERROR=1)"


def call_hydra(program: str, verb: str, arguments: list[str], task: Task) -> None:
    """Call Hydra, and let its errors through.

    Args:
        program: Name that Hydra shows, and that its completion registers.
        verb: Name of the primary configuration.
        arguments: Overrides, then flags.
        task: What to run.
    """
    import hydra

    version = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
    logging.raiseExceptions = False  # no traceback when a full disk refuses a log line
    with (
        _argv([program, *arguments]),
        _raised_errors(),
        _own_help(verb),
        _mode_of_flags(arguments),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("error", message="provider=.* is not available")  # for folders in hydra.searchpath
        hydra.main(config_path=str(conf_dir()), config_name=verb, **version)(task)()


@contextlib.contextmanager
def _own_help(verb: str) -> Iterator[None]:
    """Let `--help` show the groups that the verb chooses from, not those of all verbs, and comments beside values."""
    from hydra._internal.hydra import Hydra

    every, own = Hydra.format_config_groups, {group.partition("/")[0] for group in defaults(verb, folders())}
    bare = Hydra.get_help

    def format_config_groups(self: Hydra, predicate: Callable[[str], bool], compact: bool = True) -> str:
        return every(self, lambda group: predicate(group) and group.partition("/")[0] in {*own, "hydra"}, compact)

    def get_help(self: Hydra, help_cfg: DictConfig, cfg: DictConfig, args_parser: Any, resolve: bool) -> str:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        text, config = bare(self, help_cfg, cfg, args_parser, resolve), OmegaConf.to_yaml(cfg, resolve=resolve)
        if not HydraConfig.initialized():  # Hydra's own help
            return text
        comments = gathered(verb, HydraConfig.get().runtime.choices, folders())
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        return text.replace(config, annotated(config, comments, width))

    Hydra.format_config_groups = format_config_groups  # type: ignore[method-assign]
    Hydra.get_help = get_help  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_help = bare  # type: ignore[method-assign]
        Hydra.format_config_groups = every  # type: ignore[method-assign]


@contextlib.contextmanager
def _mode_of_flags(arguments: list[str]) -> Iterator[None]:
    """Let `-m` alone say whether this is a sweep where nothing else can: Hydra composes everything twice to ask."""
    from hydra._internal.hydra import Hydra

    bare = Hydra.get_mode
    if not user_folders() and not any(word.lstrip("+~").startswith(MAY_SET_MODE) for word in arguments):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = bare  # type: ignore[method-assign]


@contextlib.contextmanager
def _argv(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _raised_errors() -> Iterator[None]:
    """Set the variable with which Hydra raises its errors instead of printing them and exiting with 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
