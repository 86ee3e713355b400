"""Search with optuna: each trial is a run, told its values on the command line and judged by its validation metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vaebench.messages import check_range, did_you_mean
from vaebench.sweeps.base import BaseSweep
from vaebench.sweeps.space import Axis, axis, word

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

INSTALL = "pip install 'vaebench[tune]'"
STORAGES = ("journal", "sqlite")


class OptunaSweep(BaseSweep):
    """Hyper-parameter search: `sweep=optuna trainer.learning_rate=tag(log,interval(1e-4,1e-2)) model=vae,iwae`.

    Trials run in parallel where the hardware allows several jobs at a time; each new one is chosen from all results
    that are known by then. The study lies in the sweep directory: the same command continues it.

    References:
        Optuna: A Next-generation Hyperparameter Optimization Framework (Akiba et al., 2019),
        https://arxiv.org/abs/1907.10902; sampler, pruner and their settings are optuna's defaults unless given.
    Args: those of `BaseSweep`, and
        num_trials: Trials in all, those of earlier commands included, >= 1.
        sampler: A class of `optuna.samplers`: TPESampler, RandomSampler, CmaEsSampler, GPSampler, NSGAIISampler, ….
        sampler_args: Its arguments.
        pruner: A class of `optuna.pruners`, which ends hopeless trials early; null lets each train to its end.
        pruner_args: Its arguments.
        metrics: Validation metrics to optimise: one by its best value over the epochs, several by their last values.
        directions: For each of them "minimize" or "maximize".
        storage: "journal", a file that also suits network file systems, or "sqlite".
        seed: Of the sampler; with several trials at a time, results depend on which ends first.
    """

    is_adaptive: ClassVar[bool] = True

    def __init__(
        self,
        num_trials: int = 20,
        sampler: str = "TPESampler",
        sampler_args: Mapping[str, Any] | None = None,
        pruner: str | None = None,
        pruner_args: Mapping[str, Any] | None = None,
        metrics: Sequence[str] = ("loss",),
        directions: Sequence[str] = ("minimize",),
        storage: Literal["journal", "sqlite"] = "journal",
        seed: int | None = 0,
        wait: bool = True,
        dry_run: bool = False,
        confirm_above: int = 100,
    ) -> None:
        super().__init__(wait, dry_run, confirm_above)
        check_range("num_trials", num_trials, at_least=1, whole=True)
        if not metrics or len(metrics) != len(directions):
            raise ValueError(f"directions: expected one for each of {list(metrics)}, got {list(directions)}")
        for direction in directions:
            if direction not in ("minimize", "maximize"):
                raise ValueError(f"directions must be minimize or maximize, got '{direction}'")
        if storage not in STORAGES:
            raise ValueError(
                f"storage must be {' or '.join(STORAGES)}, got '{storage}'{did_you_mean(storage, STORAGES)}"
            )
        if pruner is not None and len(metrics) > 1:
            raise ValueError("pruner: trials of several metrics cannot be pruned; set sweep.pruner=null")
        self.num_trials = num_trials
        self.sampler = sampler
        self.sampler_args = dict(sampler_args or {})
        self.pruner = pruner
        self.pruner_args = dict(pruner_args or {})
        self.metrics = list(metrics)
        self.directions = list(directions)
        self.storage = storage
        self.seed = seed

    def jobs(self, overrides: Sequence[Override]) -> list[list[str]]:
        """No job is known before the first result."""
        return []

    def study(self, folder: Path) -> Any:
        """Open the study of a sweep directory, or make it.

        Raises:
            ValueError: optuna is missing, has no such sampler or pruner, or cannot open the storage.
        """
        optuna = _optuna()
        pruner = optuna.pruners.NopPruner()
        if self.pruner is not None:
            pruner = _made(optuna.pruners, self.pruner, self.pruner_args, "pruner")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if self.storage == "journal":
                backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
                storage = optuna.storages.JournalStorage(backend)
            else:
                storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
            study = optuna.create_study(
                study_name="sweep", storage=storage, pruner=pruner, directions=self.directions, load_if_exists=True
            )
        except Exception as error:  # whatever the storage's own library raises
            raise ValueError(f"storage: the study in '{folder}' cannot be opened: {error}") from None
        arguments = dict(self.sampler_args)
        if self.seed is not None and self.sampler not in ("GridSampler", "PartialFixedSampler"):
            # A continued study must not repeat the random numbers of its first trials.
            arguments.setdefault("seed", self.seed + len(study.get_trials(deepcopy=False)))
        study.sampler = _made(optuna.samplers, self.sampler, arguments, "sampler")
        return study


def suggest(trial: Any, entries: Sequence[Axis | str]) -> list[str]:
    """Return the overrides of a trial: fixed words as they are, and a value for each axis."""
    words = []
    for entry in entries:
        if isinstance(entry, str):
            words.append(entry)
        elif entry.choices is not None:
            words.append(word(entry, trial.suggest_categorical(entry.key, entry.choices)))
        elif entry.is_whole:
            words.append(word(entry, trial.suggest_int(entry.key, int(entry.low), int(entry.high), log=entry.is_log)))
        else:
            words.append(word(entry, trial.suggest_float(entry.key, entry.low, entry.high, log=entry.is_log)))
    return words


def entries_of(overrides: Sequence[Override]) -> list[Axis | str]:
    """Return the words as axes of a search, and as they are where they have one value.

    Raises:
        ValueError: no word has several values.
    """
    from vaebench.sweeps.base import fixed_word

    found = [axis(override) if override.is_sweep_override() else fixed_word(override) for override in overrides]
    if not any(isinstance(entry, Axis) for entry in found):
        raise ValueError("sweep=optuna: no key has several values; give some, such as model.latent_dim=range(2,20)")
    return found


def quiet() -> None:
    """Let optuna report warnings only: each trial is told once, by the sweep."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError(f"sweep=optuna needs the package optuna; install it: {INSTALL}") from None
    return optuna


def _made(module: Any, name: str, arguments: Mapping[str, Any], key: str) -> Any:
    kind = getattr(module, name, None)
    if not isinstance(kind, type) or name.startswith(("_", "Base")):
        names = [found for found in dir(module) if found.endswith(key.capitalize()) and not found.startswith("Base")]
        longer = f"{name}{key.capitalize()}"
        hint = f"; did you mean '{longer}'?" if longer in names else did_you_mean(name, names)
        raise ValueError(f"{key}: optuna has no '{name}'{hint}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}_args: {name} refuses them: {error}") from None
