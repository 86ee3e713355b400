"""`vaebench benchmark`: which words go where, which steps there are, what each waits for, and what runs again."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.sweeps.stand_in import StandIn, wait_for
from vaebench.cli import sweeper
from vaebench.cli.main import main
from vaebench.factory.configurations import conf_dir, folders, keys
from vaebench.report.reading import read_run
from vaebench.sweeps.check import examine
from vaebench.sweeps.pipeline import Evaluation, Variant, check_settings, steps, verbs_of
from vaebench.sweeps.record import VERBS, Sweep, continued
from vaebench.sweeps.slurm import _arrays, _with_dependency

TRAININGS = [["model=vae", "seed=0", "hardware=ddp"], ["model=rae_l2", "seed=1"]]
VARIANTS = [Variant(("sampler=normal",), "normal", (None, "no prior")), Variant(("sampler=maf",), "maf", (None, None))]
EVALUATION = Evaluation(("split=test", "metric.fd.num_samples=30", "metric.elbo.k=2"), ("elbo", "fd"), ("fd",))


@pytest.fixture
def command(tmp_path):
    return StandIn(tmp_path)


def test_each_step_comes_after_those_that_it_needs():
    found = steps(TRAININGS, VARIANTS, EVALUATION, ["sort_by=mse"])
    assert [(step.verb, step.needs) for step in found] == [
        ("train", ()), ("train", ()),
        ("sample", (0,)), ("sample", (0,)), ("sample", (1,)),
        ("evaluate", (0,)), ("evaluate", (1,)),
        ("evaluate", (2,)), ("evaluate", (3,)), ("evaluate", (4,)),
        ("report", tuple(range(10))),
    ]  # fmt: skip
    assert found[4].overrides == ("sampler=maf", "seed=1")  # the seed of its training
    assert found[2].overrides == ("sampler=normal", "seed=0", "hardware=auto")  # one process draws
    assert found[5].overrides == ("metric=[elbo]", "split=test", "metric.elbo.k=2", "hardware=auto")
    assert found[9].overrides == ("metric=[fd]", "split=test", "metric.fd.num_samples=30", "samples=maf")
    assert found[9].results == ("evaluation/fd-maf.json",)
    assert found[10].overrides == ("sort_by=mse",)


def test_a_step_works_in_the_run_of_its_training(tmp_path):
    sweep = continued(tmp_path / "s", [], "local", steps(TRAININGS, VARIANTS, EVALUATION, []), "benchmark")
    place = sweep.path
    assert sweep.words_of(sweep.jobs[1])[-1] == f"hydra.run.dir={place / '1'}"
    assert sweep.words_of(sweep.jobs[9]) == ["evaluate", *sweep.jobs[9].overrides, f"run={place / '1'}"]
    assert sweep.words_of(sweep.jobs[10]) == ["report", f"run={place}", f"output={place / 'report'}"]


def test_more_trainings_get_the_next_numbers_and_the_report_waits_for_them(tmp_path):
    first = continued(tmp_path / "s", [], "local", steps(TRAININGS[:1], VARIANTS, EVALUATION, []), "benchmark")
    first.path.mkdir()
    first.save()
    grown = continued(first.path, [], "local", steps(TRAININGS, VARIANTS, EVALUATION, []), "benchmark")
    assert [job.verb for job in grown.jobs[len(first.jobs) :]] == ["train", "sample", "evaluate", "evaluate"]
    assert grown.jobs[: len(first.jobs) - 1] == first.jobs[:-1]
    report = grown.jobs[len(first.jobs) - 1]
    assert sorted(report.needs) == sorted({job.number for job in grown.jobs} - {report.number})
    grown.save()
    assert Sweep.open(grown.path) == grown
    with pytest.raises(ValueError, match="differs in the command, vaebench benchmark"):
        continued(first.path, [], "local", [["model=vae"]])


def test_words_go_to_the_verbs_that_read_them():
    own = {verb: keys(verb, folders()) for verb in VERBS}
    assert {word: verbs_of(word, own) for word in ("model=vae", "~callback.images", "sampler.temperature=2")} == {
        "model=vae": ("train",), "~callback.images": ("train",), "sampler.temperature=2": ("sample",),
    }  # fmt: skip
    assert verbs_of("checkpoint=last", own) == ("sample", "evaluate")
    assert verbs_of("metric=[fd]", own) == ("evaluate",)
    assert verbs_of("sort_by=mse", own) == ("report",)
    for word in ("dataset.root=x", "seed=0,1", "hardware=slurm", "hydra.job.name=x", "nonsense=1"):
        assert verbs_of(word, own) == ("train",)


def test_what_the_verbs_do_by_default_they_do_here():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = {
            verb: OmegaConf.to_container(compose(verb), resolve=True)
            for verb in ("benchmark", "train", "sample", "evaluate", "report")
        }
    whole = found.pop("benchmark")
    ours = {("sample", "num_samples"), ("evaluate", "metric")}  # enough to judge, and what judges
    of_one_run = {"resume", "run", "samples", "output", "y", "animation", "netcdf"}
    for verb, tree in found.items():
        shared = {key for key in tree if key in whole and not (verb in ("sample", "evaluate") and key == "dataset")}
        assert {key: tree[key] for key in shared if (verb, key) not in ours} == {
            key: whole[key] for key in shared if (verb, key) not in ours
        }
        assert set(tree) - shared <= {"dataset", *of_one_run}
    assert set(whole) == {key for tree in found.values() for key in tree} - of_one_run


def test_two_variants_of_one_sampler_would_share_a_folder():
    twice = [Variant((f"sampler.num_chains={n}",), "hmc", (None, None)) for n in (4, 8)]
    with pytest.raises(ValueError, match=r"sampler=hmc is given twice .*num_chains=4 and .*give one value"):
        steps(TRAININGS, twice, EVALUATION, [])


def test_settings_are_checked_before_hours_have_passed():
    good = {"num_samples": 10, "batch_size": 5, "num_examples": None, "checkpoint": "best", "split": "test"}
    check_settings(good)
    for wrong in (
        {"num_samples": 0},
        {"batch_size": "x"},
        {"num_examples": 0},
        {"checkpoint": "bset"},
        {"split": "all"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            check_settings({**good, **wrong})


def test_slurm_is_told_what_to_wait_for(tmp_path):
    sweep = continued(tmp_path / "s", [], "slurm", steps(TRAININGS, VARIANTS, EVALUATION, []), "benchmark")
    groups = [[job.number for job in group] for group in _arrays(sweep.jobs)]
    assert groups == [[0, 1], [2, 3], [4], [5], [6], [7], [8], [9], [10]]
    given = _with_dependency({"mail-user": "me", "dependency": "singleton"}, "sample", ["7_0"])
    assert given == {"mail-user": "me", "dependency": "singleton,afterok:7_0", "kill-on-invalid-dep": "yes"}
    assert _with_dependency({}, "report", ["7_0", "7_1", "8"])["dependency"] == "afterany:7:8"
    assert _with_dependency({"mail-user": "me"}, "train", []) == {"mail-user": "me"}


WORDS = (
    "benchmark", "model=vae,rae_l2", "sampler=normal,hmc", "metric=elbo,fd", "hydra.sweep.dir=s", "num_samples=50",
)  # fmt: skip


def states(command):
    return [state.name for state in Sweep.open(command.folder / "s").states().values()]


def test_a_benchmark_from_its_line_to_its_report_and_again(command):
    told = command.run(*WORDS)
    assert "left out: sampler=hmc for model=rae_l2: no density" in told
    verbs = [line.split()[0] for line in command.started]
    assert verbs == ["train"] * 2 + ["sample"] * 3 + ["evaluate"] * 5 + ["report"]
    assert states(command) == ["done"] * 11
    assert "all 11 jobs of 's' are done" in command.run(*WORDS)
    (command.folder / "s/0/evaluation/fd-hmc.json").unlink()
    command.run(*WORDS)
    assert [line.split()[0] for line in command.started[11:]] == ["evaluate", "report"]
    command.run(*[word.replace("hmc", "hmc,maf") for word in WORDS])
    assert [line.split()[0] for line in command.started[13:]] == ["sample"] * 2 + ["evaluate"] * 2 + ["report"]
    assert "holds another sweep; it differs in num_samples" in command.run(*WORDS[:-1], "num_samples=60", code=2)


def test_an_experiment_names_what_is_varied(command):
    place = command.folder / "mine" / "experiment"
    place.mkdir(parents=True)
    (place / "pair.yaml").write_text(
        "# @package _global_\n# A pair\nhydra:\n  sweeper:\n    params:\n      model: vae,rae_l2\n"
        "      sampler: normal\n      seed: 0,1\n      num_samples: 30\nmodel:\n  latent_dim: 3\n"
    )
    words = ("--config-dir", "mine", "experiment=pair", "metric=fd", "seed=7", "hydra.sweep.dir=s")
    command.run("benchmark", *words)
    mine = f"--config-dir {command.folder / 'mine'}"  # or the jobs would not find it
    assert [line for line in command.started if line.startswith("train")] == [
        f"train model={model} experiment=pair seed=7 hydra.run.dir=s/{number} {mine}"
        for number, model in enumerate(("vae", "rae_l2"))
    ]
    assert "sample sampler=normal num_samples=30 seed=7 run=s/0 " + mine in command.started
    told = command.run("train", "-m", *words[:3], "seed=7", "hydra.sweep.dir=t", "sweep.dry_run=true")
    assert "2 waiting" in told
    assert "can start other programs; if the sweep is yours, type" in command.run("sweep", "resume", "s", code=2)


def test_what_needs_a_failed_step_is_skipped_and_the_rest_goes_on(command):
    told = command.run(*WORDS[:2], *WORDS[2:], "trainer.optimizer=raises,done", "hardware=submitit_local", code=1)
    found = states(command)
    sweep = Sweep.open(command.folder / "s")
    failed = {job.number for job in sweep.jobs if "trainer.optimizer=raises" in job.overrides}
    for job, state in zip(sweep.jobs, found, strict=True):
        run = int(sweep.run(job).path.name) if job.verb != "report" else None
        assert state == ("failed" if job.number in failed else "skipped" if run in failed else "done")
    skipped = next(job for job in sweep.jobs if job.outcome == "skipped")
    assert skipped.reason == f"job {skipped.needs[0]}, which it needs, did not succeed"
    assert skipped.reason in told
    assert "vaebench benchmark: 10 of 21 jobs did not succeed" in told


def test_a_benchmark_that_was_interrupted_goes_on_where_it_was(command):
    words = (*WORDS, "trainer.optimizer=waits", "hardware=submitit_local", "hardware.array_parallelism=8")
    process = command.start(*words)
    wait_for(lambda: all((command.folder / f"s/{number}/started").exists() for number in (0, 1)))
    process.terminate()
    command.end(process, 130)
    assert states(command) == ["interrupted"] * 2 + ["waiting"] * 9  # although there was room for eight
    (command.folder / "go").touch()
    assert "11 done" in command.run("sweep", "resume", "s")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("split=train,test",), "gives several values, and a benchmark evaluates each run in one way"),
        (("num_samples=0",), "num_samples must be a whole number of at least 1"),
        (("sampler=hcm",), "did you mean 'hmc'"),
        (("sampler.num_chian=3", "sampler=hmc"), "did you mean 'sampler.num_chains'"),
        (("sweep=optuna",), "choose sweep=grid"),
        (("run=x",), "there is no key 'run'"),
        (("samples=normal",), "did you mean 'num_samples'"),
        (("resume=x",), "resume"),
    ],
)
def test_mistakes_are_told_before_anything_starts(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeper, "examine", lambda question: pytest.fail("it was asked to build something"))
    given = {word.partition("=")[0] for word in words}
    assert main([*(word for word in WORDS if word.partition("=")[0] not in given), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.slow
def test_a_real_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeper, "examine", examine)  # this process has imported torch
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = (
        "benchmark", "model=vae", "sampler=gaussian_mixture", "sampler.num_components=2", "metric=fd",
        "trainer.num_epochs=1", "model.network.hidden_dims=[8]", "num_samples=200", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert main(words) == 0
    record = read_run(Path("s/0"))
    assert record.problem is None
    found = json.loads(Path("s/0/evaluation/fd-gaussian_mixture.json").read_text())
    assert found["settings"]["samples"] == "gaussian_mixture"
    assert found["values"]["fd_pixels"]["value"] > 0
    assert Path("s/report/report.html").stat().st_size > 1_000
    assert main([*words, "sampler=normal"]) == 2  # given twice
    assert main(words) == 0
    assert "all 4 jobs of 's' are done" in capsys.readouterr().out
