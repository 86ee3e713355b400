"""From words to jobs: grids, lists, random draws."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vaebench.sweeps.grid import GridSweep
from vaebench.sweeps.list import ListSweep
from vaebench.sweeps.random import RandomSweep
from vaebench.sweeps.space import Axis, axis


def parsed(*words):
    return OverridesParser.create().parse_overrides(list(words))


def test_a_grid_is_every_combination_the_last_key_fastest():
    jobs = GridSweep().jobs(parsed("model=vae,iwae", "trainer.num_epochs=3", "seed=range(0,2)"))
    assert [job[0] + " " + job[2] for job in jobs] == [
        "model=vae seed=0", "model=vae seed=1", "model=iwae seed=0", "model=iwae seed=1",
    ]  # fmt: skip
    assert {job[1] for job in jobs} == {"trainer.num_epochs=3"}


def test_a_grid_refuses_what_has_no_end_and_what_is_empty():
    with pytest.raises(ValueError, match=r"no finite number of values; choose sweep=random or optuna"):
        GridSweep().jobs(parsed("trainer.learning_rate=interval(0,1)"))
    with pytest.raises(ValueError, match="matches nothing"):
        GridSweep().jobs(parsed("seed=range(3,3)"))


def test_a_list_is_one_job_a_line(tmp_path):
    file = tmp_path / "jobs.txt"
    file.write_text("model=vae  # first\n\n# a comment\nmodel=rhvae 'dataset.path=a b'\n")
    jobs = ListSweep(str(file)).jobs(parsed("seed=0,1"))
    assert jobs == [
        ["seed=0", "model=vae"], ["seed=1", "model=vae"],
        ["seed=0", "model=rhvae", "dataset.path=a b"], ["seed=1", "model=rhvae", "dataset.path=a b"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("vae\n", "line 1 of .*'vae' is not of the form key=value"), ("# none\n", "holds no job"), ("a='b\n", "line 1")],
)
def test_a_list_with_a_mistake_says_its_line(tmp_path, text, sentence):
    file = tmp_path / "jobs.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        ListSweep(str(file))
    with pytest.raises(ValueError, match="a file with one job in each line is needed"):
        ListSweep()


def test_random_values_lie_where_they_should_and_longer_sweeps_begin_alike():
    words = ("a=tag(log,interval(1e-4,1e-2))", "b=int(interval(2,5))", "c=choice(x,y)", "d=7", "e=range(1,4)")
    jobs = RandomSweep(num_jobs=400, seed=3).jobs(parsed(*words))
    values = [dict(word.split("=") for word in job) for job in jobs]
    logs = [math.log10(float(value["a"])) for value in values]
    assert all(-4 <= value <= -2 for value in logs)
    assert abs(sum(logs) / len(logs) + 3) < 4 * 2 / math.sqrt(12 * len(logs))  # uniform in the logarithm
    assert {value["b"] for value in values} == {"2", "3", "4", "5"}
    assert {value["e"] for value in values} == {"1", "2", "3"}
    assert {value["c"] for value in values} == {"x", "y"}
    assert {value["d"] for value in values} == {"7"}
    assert RandomSweep(num_jobs=5, seed=3).jobs(parsed(*words)) == jobs[:5]
    assert RandomSweep(num_jobs=5, seed=4).jobs(parsed(*words)) != jobs[:5]


def test_random_without_several_values_is_refused():
    with pytest.raises(ValueError, match="no key has several values"):
        RandomSweep().jobs(parsed("seed=1"))


def test_axes():
    (found,) = [axis(override) for override in parsed("a=range(2,6)")]
    assert found == Axis("a", None, 2, 5, is_whole=True)
    (found,) = [axis(override) for override in parsed("a=range(2,10,2)")]
    assert found == Axis("a", ("2", "4", "6", "8"))
    shown = [str(axis(override)) for override in parsed("a=range(2,6)", "b=tag(log,interval(1e-3,1))", "c=x,y")]
    assert shown == [
        "a: whole numbers from 2 to 5", "b: numbers from 0.001 to 1, even in the logarithm", "c: one of x, y",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="numbers above 0"):
        axis(parsed("a=tag(log,interval(0,1))")[0])
    with pytest.raises(ValueError, match="from a smaller to a larger"):
        axis(parsed("a=interval(1,1)")[0])
