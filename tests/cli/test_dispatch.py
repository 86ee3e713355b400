"""The verbs, what Hydra keeps behind them, and where a run is written."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig

import vaebench
from vaebench.cli.main import VERBS
from vaebench.cli.overrides import arrange
from vaebench.factory.configurations import conf_dir, folders, options
from vaebench.factory.groups import GROUPS
from vaebench.runs.log import start_log

HYDRA_VERBS = [verb for verb in VERBS if verb not in ("list", "sweep")]


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_own_help(command, words):
    answer = command(*words)
    assert answer.code == 0
    assert all(verb in answer.out for verb in VERBS)


def test_version(command):
    assert command("--version").out == f"vaebench {vaebench.__version__}\n"


@pytest.mark.parametrize(("word", "verb"), [("trian", "train"), ("eval", "evaluate"), ("sampel", "sample")])
def test_nearest_verb(command, word, verb):
    answer = command(word, "model=vae")
    assert answer.code == 2
    assert answer.err == f"vaebench: there is no verb '{word}'; did you mean '{verb}'?\n"


@pytest.mark.parametrize("words", [("model=vae",), ("-m", "train")])
def test_the_verb_comes_first(command, words):
    answer = command(*words)
    assert answer.code == 2
    assert "before the verb" in answer.err


@pytest.mark.parametrize("words", [("--help",), ("list",), ("train", "--cfg", "job"), ("report", "--help"), ("trian",)])
def test_answers_without_torch(words, tmp_path):
    code = "import sys; from vaebench.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_as_a_module_and_as_a_script(tmp_path):
    script = Path(sys.executable).with_name("vaebench")
    for command in ([sys.executable, "-m", "vaebench"], [str(script)]):
        done = subprocess.run([*command, "modl"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "there is no verb 'modl'" in done.stderr


def test_a_reader_who_leaves(tmp_path):
    code = "from vaebench.cli.main import main; import sys; sys.exit(main(['list']))"
    listing = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None
    listing.stdout.close()
    _, err = listing.communicate()
    assert err == b""


@pytest.mark.parametrize("verb", HYDRA_VERBS)
def test_help_of_a_verb(command, verb):
    answer = command(verb, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"vaebench {verb}: ")
    shown = re.findall(r"^([a-z]+)(?:/[a-z]+)?: [a-z]", answer.out.partition("== Configuration")[0], re.MULTILINE)
    filled = options([conf_dir()])
    own = {name for name, group in GROUPS.items() if verb in group.verbs and "/" not in name and name in filled}
    assert set(shown) - {"vaebench"} == own  # not those of all verbs


def test_help_shows_the_overridden_configuration(command):
    answer = command("train", "--help", "seed=17", "model=rhvae")
    assert "seed: 17" in answer.out
    assert re.search(r"^model: .*rhvae.*vae", answer.out, re.MULTILINE)


def test_configuration_and_its_origin(command):
    assert "latent_dim: 3" in command("train", "model.latent_dim=3", "--cfg", "job").out
    assert "latent_dim: 3" in command("train", "--cfg", "job", "model.latent_dim=3", "--package", "model").out
    assert "| dataset/digits " in command("train", "--info", "defaults").out


def test_a_configuration_is_composed_once_unless_hydra_is_given_a_mode(command, monkeypatch):
    calls, compose = [], Hydra.compose_config
    monkeypatch.setattr(Hydra, "compose_config", lambda *args, **named: calls.append(1) or compose(*args, **named))
    assert command("train").code == 0
    assert len(calls) == 1
    assert command("train", "hydra.mode=RUN").code == 0
    assert len(calls) == 1 + 2


def own_folder():
    return Path(HydraConfig.get().runtime.output_dir)


def test_a_run_has_its_own_folder_and_log(command, tmp_path):
    def task(cfg):
        start_log(own_folder() / "train.log")
        logging.getLogger("vaebench.test").info("said in the \x1b]0;run")

    answer = command("train", "model=vae", task=task)
    assert (answer.code, answer.out, answer.err) == (0, "", "said in the \ufffd]0;run\n")
    (log,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert re.fullmatch(
        r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}-vae-digits/train.log", str(log.relative_to(tmp_path))
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    said in the \ufffd]0;run\n", log.read_text())


@pytest.mark.parametrize("verb", ["sample", "evaluate", "report"])
def test_other_verbs_leave_nothing_behind(command, tmp_path, verb):
    assert command(verb, task=lambda cfg: logging.getLogger().warning("said")).err == "said\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("-m", "seed=0,1", "model=vae,rhvae"), ("seed=0,1", "--multirun", "model=vae,rhvae")]
)
def test_a_sweep_with_the_flag_anywhere(command, tmp_path, words):
    seen = []

    def task(cfg):
        start_log(own_folder() / "train.log")
        logging.getLogger().info("job %s", cfg.seed)
        seen.append((cfg.seed, "beta_zero" in cfg.model))

    answer = command("train", *words, task=task)
    assert answer.code == 0
    assert sorted(seen) == sorted({(seed, flow) for seed in (0, 1) for _, flow in seen})
    assert len(seen) == 4
    logs = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("train.log"))
    assert [re.sub(r"\d{4}-\d\d-\d\d/[\d-]+", "<when>", log) for log in logs] == [
        f"outputs/multirun/<when>/{number}/train.log" for number in range(4)
    ]
    assert [path.read_text().count("\n") for path in tmp_path.rglob("train.log")] == [1] * 4


def test_a_failed_job_does_not_stop_the_others(command):
    seen = []

    def task(cfg):
        seen.append(cfg.seed)
        if cfg.seed == 0:
            raise RuntimeError("broken")
        if cfg.seed == 1:
            raise ValueError("seed: expected an even number")

    answer = command("train", "-m", "seed=0,1,2", task=task)
    assert seen == [0, 1, 2]
    assert answer.code == 2
    assert "job 0 (seed=0): failed: RuntimeError: broken" in answer.err
    assert "job 1 (seed=1): seed: expected an even number" in answer.err
    assert "2 of 3 jobs did not succeed" in answer.err
    assert "Traceback" not in answer.err


def test_resume_uses_the_folder_of_the_run(command, tmp_path):
    run = tmp_path / "an old run, it's = [mine]"
    run.mkdir()
    (run / "config.yaml").write_text("")
    answer = command("train", f"resume={run}", task=lambda cfg: logging.getLogger().info(cfg.resume))
    assert (answer.code, answer.err) == (0, f"{run}\n")
    assert {path.name for path in run.iterdir()} == {"config.yaml"}
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


@pytest.mark.parametrize("words", [("-m",), ("hydra.run.dir=elsewhere",)])
def test_resume_is_for_one_run(command, tmp_path, words):
    (tmp_path / "config.yaml").write_text("")
    assert command("train", f"resume={tmp_path}", *words).code == 2


def test_resume_of_what_is_no_run_leaves_it_alone(command, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").write_text("")
    answer = command("train", f"resume={folder}")
    assert (answer.code, answer.err) == (
        2,
        f"vaebench train: resume: '{folder}' is not a run directory (it has no config.yaml)\n",
    )
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_resume_null_is_a_new_run(command):
    assert command("train", "resume=null").code == 0


@pytest.mark.parametrize(
    "word", ["experiment=null", "callback=null", "callback=[]", "callback=ema", "callback=[ema,images]"]
)
def test_groups_that_may_be_empty_or_several(command, word):
    seen = []
    answer = command("train", word, task=lambda cfg: seen.extend(cfg.get("callback") or []))
    assert (answer.code, answer.err) == (0, "")
    if word.startswith("callback"):
        assert set(seen) - {"progress", "images", "checkpoint"} == {name for name in ("ema",) if name in word}


def test_report_takes_plain_words(command):
    seen = []
    words = [
        "outputs/a run",
        "it's",
        "a,b",
        "[c]",
        r"a\b",
        r"it\'s",
        "end\\",
        "${here}",
        r"\${here}",
        '"q"',
        "1",
        "null",
    ]
    answer = command("report", *words, task=lambda cfg: seen.extend(cfg.run))
    assert answer.code == 0, answer.err
    assert seen == words


def test_report_takes_a_sweep_of_which_the_name_looks_like_an_override(command, tmp_path):
    (tmp_path / "model=vae,seed=1").mkdir()
    seen = []
    command("report", "model=vae,seed=1", task=lambda cfg: seen.extend(cfg.run))
    assert seen == ["model=vae,seed=1"]


def folder_with(model: str, text: str, folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / f"{model}.yaml").write_text(text)
    return folder


def test_a_folder_of_the_user_adds(command, tmp_path):
    folder = folder_with("mine", "latent_dim: 99\n", tmp_path / "conf")
    assert command("train", "model=mine", "--cfg", "job").code == 2
    assert "latent_dim: 99" in command("train", "model=mine", "--cfg", "job", "--config-dir", str(folder)).out


def test_a_folder_of_the_environment_replaces(command, tmp_path, monkeypatch):
    first = folder_with("vae", "latent_dim: 99\n", tmp_path / "first")
    second = folder_with("vae", "latent_dim: 11\n", tmp_path / "second")
    assert "latent_dim: 99" not in command("train", "--cfg", "job").out
    monkeypatch.setenv("VAEBENCH_CONF", f"{first}:{second}")
    assert "latent_dim: 99" in command("train", "--cfg", "job").out
    assert "model=rhvae" in command("list", "models").out


def test_a_model_brings_its_trainer_and_the_user_has_the_last_word(command, tmp_path, monkeypatch):
    folder = folder_with(
        "pair",
        "defaults:\n  - _self_\n  - override /trainer@_global_.trainer: other\nlatent_dim: 2\n",
        tmp_path / "conf",
    )
    folder_with("pair_variant", "defaults:\n  - pair\n  - _self_\n", tmp_path / "more")
    for group, name, text in (
        ("trainer", "other", "word: other\n"),
        ("trainer", "third", "word: third\n"),
        ("experiment", "paper", "# @package _global_\ndefaults:\n  - override /model: pair\ntrainer:\n  word: paper\n"),
        (
            "experiment",
            "both",
            "# @package _global_\ndefaults:\n  - override /model: pair\n  - override /trainer: third\n",
        ),
    ):
        (folder / group).mkdir(exist_ok=True)
        (folder / group / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("VAEBENCH_CONF", f"{folder}:{tmp_path / 'more'}")

    def word(*words: str) -> str:
        return command("train", *words, "--cfg", "job", "--package", "trainer.word").out.strip()

    assert word("model=pair") == "other"
    assert word("model=pair_variant") == "other"
    assert word("model=pair", "trainer=third") == "third"
    assert word("experiment=paper") == "paper"
    assert word("experiment=both") == "third"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a disk that is always full")
@pytest.mark.parametrize("words", [("list",), ("--help",), ("train", "--cfg", "job")])
def test_an_answer_that_cannot_be_written(words, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vaebench", *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_group_that_takes_several_options_reach_each_job():
    words = ["-m", "sampler=mala,hmc", "sampler.num_chains=4", "sampler.thinning=1,2", "target=gaussian", "seed=3"]
    arranged = arrange("sample", words, folders()).overrides
    assert arranged == [
        "sampler=mala,hmc",
        "sampler.num_chains=choice(4)",  # sampler=normal, from which Hydra begins, has no chains
        "sampler.thinning=1,2",
        "target=gaussian",
        "seed=3",
    ]
    assert "sampler.num_chains=4" in arrange("sample", ["sampler=hmc", "sampler.num_chains=4"], folders()).overrides
