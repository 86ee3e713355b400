"""Search: proposed by optuna, run as processes, pruned, failed, continued; and against optuna alone."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vaebench.commands.sweep import show_study
from vaebench.sweeps.local import LocalPool
from vaebench.sweeps.optuna import OptunaSweep, entries_of
from vaebench.sweeps.record import Sweep, search_in
from vaebench.sweeps.search import search

optuna = pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

PROGRAM = """
import json, math, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[2:])
run = pathlib.Path(words["hydra.run.dir"]); run.mkdir(parents=True, exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
x, n = float(words["x"]), int(words["n"])
if words.get("fails") and x > 2: sys.exit(1)
value = math.nan if words.get("nan") and n == 3 else (x - 1) ** 2 + n
with open(run / "metrics.jsonl", "w") as file:
    for epoch in range(1, 4):
        row = {"step": epoch, "epoch": epoch, "split": "validation", "loss": value + 3 - epoch, "rate": x}
        file.write(json.dumps(row).replace("NaN", "null") + chr(10)); file.flush()
    if words.get("slow") and value > float(words["slow"]): time.sleep(20)
(run / "status.json").write_text(json.dumps({"status": "done", "epoch": 3, "step": 3}))
"""
SPACE = ("x=interval(-4,4)", "n=range(0,5)", "model=vae")


def run(tmp_path, kind, *more, parallelism=1, notice=lambda *_: None):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    overrides = OverridesParser.create().parse_overrides([*SPACE, *more])
    sweep = search_in(tmp_path / "s", [*SPACE, *more], "local")
    pool = LocalPool(parallelism, program=(sys.executable, str(program)))
    return sweep, search(kind, sweep, pool, entries_of(overrides), notice, parallelism, pause=0.02)


def test_the_trials_are_those_of_optuna_alone(tmp_path):
    _, study = run(tmp_path, OptunaSweep(num_trials=8, seed=5))
    alone = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
    alone.optimize(lambda t: (t.suggest_float("x", -4, 4) - 1) ** 2 + t.suggest_int("n", 0, 4), n_trials=8)
    assert [t.params["n"] for t in study.trials] == [t.params["n"] for t in alone.trials]
    assert [t.value for t in study.trials] == pytest.approx([t.value for t in alone.trials], abs=1e-8)


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_study_goes_on_where_it_stopped(tmp_path, storage):
    before = [trial.params for trial in run(tmp_path, OptunaSweep(num_trials=3, storage=storage))[1].trials]
    sweep, more = run(tmp_path, OptunaSweep(num_trials=6, storage=storage), parallelism=2)
    after = [trial.params for trial in more.trials]
    assert after[:3] == before
    assert len({params["x"] for params in after}) == 6  # and does not propose the first ones again
    assert len(Sweep.open(sweep.path).jobs) == 6
    assert all(job.submissions == 1 for job in sweep.jobs)


def test_a_failed_trial_and_a_value_that_is_no_number_are_failed_trials(tmp_path):
    sweep, study = run(tmp_path, OptunaSweep(num_trials=12, sampler="RandomSampler"), "fails=1", "nan=1", parallelism=2)
    expected = {t.number: t.params["x"] > 2 or t.params["n"] == 3 for t in study.trials}
    assert any(expected.values())
    assert not all(expected.values())
    for trial in study.trials:
        assert (trial.state == optuna.trial.TrialState.FAIL) == expected[trial.number]
        assert (sweep.jobs[trial.number].outcome == "failed") == expected[trial.number]


def test_hopeless_trials_are_pruned_by_their_validation_values(tmp_path):
    kind = OptunaSweep(
        num_trials=8, sampler="RandomSampler", pruner="ThresholdPruner", pruner_args={"upper": 3.0, "n_warmup_steps": 3}
    )
    sweep, study = run(tmp_path, kind, "slow=3", parallelism=2)
    for trial in study.trials:
        hopeless = (trial.params["x"] - 1) ** 2 + trial.params["n"] > 3.0
        assert (trial.state == optuna.trial.TrialState.PRUNED) == hopeless
        assert (sweep.state(sweep.jobs[trial.number]).name == "pruned") == hopeless


def test_a_trial_that_is_stopped_after_a_report_goes_on_without_reporting_it_again(tmp_path, monkeypatch):
    kind = OptunaSweep(num_trials=1, pruner="ThresholdPruner", pruner_args={"upper": 1e6})
    outcome = LocalPool.outcome

    def interrupt(pool, sweep, job):
        if not kind.study(sweep.path).trials[0].intermediate_values:
            return None  # not before a value was reported
        monkeypatch.setattr(LocalPool, "outcome", outcome)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalPool, "outcome", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, kind)
    before = kind.study(tmp_path / "s").trials[0].intermediate_values
    sweep, study = run(tmp_path, kind)  # optuna's warning of a second report is an error in tests
    (trial,) = study.trials
    assert before
    assert before.items() <= trial.intermediate_values.items()
    assert sorted(trial.intermediate_values) == [1, 2, 3]
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert [job.submissions for job in sweep.jobs] == [2]


def test_twelve_trials_on_two_workers_stopped_and_continued_to_twenty_are_those_of_optuna_alone(tmp_path):
    """The values of RandomSampler depend on how often it was asked, and on no result: so they can be compared."""
    upper, settings = 9.0, {"sampler": "RandomSampler", "pruner": "ThresholdPruner", "seed": 3}
    settings["pruner_args"] = {"upper": upper, "n_warmup_steps": 3}
    seen = []

    def interrupt(job, outcome):
        seen.append(job.number)
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, OptunaSweep(num_trials=12, **settings), "slow=9", parallelism=2, notice=interrupt)
    asked = [len(Sweep.open(tmp_path / "s").jobs)]
    assert 6 <= asked[0] < 12
    for num_trials in (12, 20):
        sweep, study = run(tmp_path, OptunaSweep(num_trials=num_trials, **settings), "slow=9", parallelism=2)
        asked.append(len(study.trials))
    assert asked[1:] == [12, 20]

    expected = []
    for start, end in zip([0, *asked], asked, strict=False):
        alone = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3 + start))
        for _ in range(start, end):
            trial = alone.ask()
            expected.append((trial.suggest_float("x", -4, 4), trial.suggest_int("n", 0, 4)))
    values = [(x - 1) ** 2 + n for x, n in expected]
    assert [(trial.params["x"], trial.params["n"]) for trial in study.trials] == expected
    assert {trial.number for trial in study.trials if trial.state.name == "PRUNED"} == {
        number for number, value in enumerate(values) if value > upper
    }
    assert 0 < sum(value > upper for value in values) < 20
    assert study.best_value == pytest.approx(min(values))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    assert [state.name for state in sweep.states().values()] == [
        "pruned" if value > upper else "done" for value in values
    ]


def test_a_study_ends_with_its_best_trial_as_a_command_what_mattered_and_pictures(tmp_path, capsys):
    kind = OptunaSweep(num_trials=10, sampler="RandomSampler")
    sweep, study = run(tmp_path, kind, parallelism=2)
    show_study(kind, study, sweep)
    told = capsys.readouterr().out.splitlines()
    best = study.best_trial
    words = sweep.jobs[best.number].overrides
    assert told[:2] == [f"best: trial {best.number}, loss {best.value:.6g}", f"    vaebench train {' '.join(words)}"]
    shares = {line.split()[2]: float(line.split()[3]) for line in told if line.startswith("importance of ")}
    assert set(shares) == {"x:", "n:"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.011)  # two decimals each
    for name in ("history.png", "parallel_coordinates.png"):
        assert f"picture: {sweep.path / name}" in told
        assert (sweep.path / name).read_bytes().startswith(b"\x89PNG")


def test_several_objectives(tmp_path):
    kind = OptunaSweep(
        num_trials=5, sampler="NSGAIISampler", metrics=["loss", "rate"], directions=["minimize", "maximize"]
    )
    _, study = run(tmp_path, kind)
    for trial in study.trials:
        assert trial.values == pytest.approx([(trial.params["x"] - 1) ** 2 + trial.params["n"], trial.params["x"]])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampler": "TPE"}, "sampler: optuna has no 'TPE'; did you mean 'TPESampler'"),
        ({"pruner": "Median"}, "pruner: optuna has no 'Median'; did you mean 'MedianPruner'"),
        ({"sampler_args": {"n_jobs": 3}}, "sampler_args: TPESampler refuses them"),
    ],
)
def test_what_optuna_does_not_know_is_said(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptunaSweep(**options).study(tmp_path)


def test_settings_that_contradict_each_other():
    with pytest.raises(ValueError, match="expected one for each"):
        OptunaSweep(metrics=["loss", "rate"])
    with pytest.raises(ValueError, match="several metrics cannot be pruned"):
        OptunaSweep(metrics=["a", "b"], directions=["minimize", "minimize"], pruner="MedianPruner")


def test_a_storage_that_cannot_be_opened(tmp_path):
    (tmp_path / "study.db").write_text("no database " * 100)
    with pytest.raises(ValueError, match="cannot be opened"):
        OptunaSweep(storage="sqlite").study(tmp_path)
