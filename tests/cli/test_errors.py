"""Every mistake of a command line is one sentence that names the key and the nearest valid name; exit code 2."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

import pytest

from vaebench.runs.log import start_log

MISTAKES = {
    "modle=vae": "'model'",
    "model=rvhae": "'rhvae'",
    "model=nothing_like_it": "vae",
    "model=vea": "did you mean 'vae'? (vaebench list models: all",
    "dataset=digit": "'digits'",
    "model.latnt_dim=3": "'model.latent_dim'",
    "seeed=3": "'seed'",
    "seed.value=3": "'seed' is a single value",
    "hydra.run.dr=x": "'hydra.run.dir'",
    "model/liklihood=gaussian": "'model/likelihood'",
    "model/likelihood=gausian": "'gaussian'",
    "model/nonsense=mlp": "model/nonsense",
    "modle@x=vae": "'model'",
    "sampler=hmc": "sampler",
    "hydra/launcher=nothing": "basic",
    "seed=1,2": "-m",
    "model=[vae,rhvae]": "model=vae,rhvae",
    "model=vae,rhvae": "add -m for one job each\n",
    "model.network.hidden_dims=8,4": "write 'model.network.hidden_dims=[8,4]'",
    "model = vae": "leave out the spaces around '='",
    "trainer.num_epochs=": "trainer.num_epochs=VALUE",
    "trainer.num_epochs=[1": "trainer.num_epochs=[1",
    "model==vae": "model==vae",
    "rhvae": "model=rhvae",
    "word": "group=option",
    "+sed=3": "'seed'",
    "++sed=3": "'seed'",
    "+model.latent_dim=3": "without '+'",
    "~modle": "'model'",
    "~model": "a model is needed",
    "model/network=null": "mlp",
    "model=null": "a model is needed",
    "model=vae model=rhvae": "model=vae and model=rhvae",
    "seed=1 ++seed=2": "given twice",
    "--bogus": "--bogus",
    "--multirn": "'--multirun'",
    "--cfg jobs": "jobs",
    "--config-dir nowhere": "nowhere",
    "--config-name trian": "'train'",
    "resume=nowhere": "resume",
    "hydra.searchpath=[nowhere]": "nowhere",
    "--cfg job --package nothing": "nothing",
    "model@other=vae": "model",
    "-m hydra.run.dir=x seed=1,2": "hydra.sweep.dir",
    "-m model=vae,rvhae": "rvhae",
    "hydra.run.dir=${nowhere}": "hydra.run.dir",
    "trainer.lr=3": "'trainer.learning_rate'",
    "trainer.optimizer_args.weight_decay=3": "'trainer.optimizer_args={weight_decay:VALUE}'",
    "lr=3": "'trainer.learning_rate'",
    "latent_dim=4": "'model.latent_dim'",
    "trainer.z_dim=4": "'model.latent_dim'",
    "model.beta_zero=1": "model=rhvae",
    "epochs=4": "'trainer.num_epochs'",
    "network=conv": "did you mean 'model/network'?",
    "trainer.bs=4": "'trainer.batch_size'",
    "output_dir=x": "'hydra.run.dir'",
    "hardware=cuda": "'gpu'",
    "--model vae": "model=vae",
    "--lr=3": "trainer.learning_rate=3",
    "--num-epochs 4": "trainer.num_epochs=4",
    "--seed": "seed=VALUE",
    "model=": "model=rhvae",
    "hydra/launcher=submitit_slurm": "pip install hydra-submitit-launcher",
    "hydra/sweeper=optuna": "pip install hydra-optuna-sweeper",
    "model.name=a=b": "'model.name=\"a=b\"'",
    "trainer.optimizer_args={a=1}": "{name:value}",
    "-m model=glob(x*)": "matches none",
    "-m trainer.num_epochs=glob(x*)": "list the values",
    "--config-name evaluate": "defaults: [train, _self_]",
}


# Hydra's plugins that are no mistake where they are installed.
PLUGINS = {"hydra/launcher=submitit_slurm": "submitit_launcher", "hydra/sweeper=optuna": "optuna_sweeper"}


def is_installed(plugin: str) -> bool:
    """Whether one of Hydra's own plugins is."""
    has_plugins = importlib.util.find_spec("hydra_plugins") is not None
    return has_plugins and importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}") is not None


@pytest.mark.parametrize("words", MISTAKES)
def test_one_sentence_and_nothing_written(command, tmp_path, words):
    if words in PLUGINS and is_installed(PLUGINS[words]):
        pytest.skip(f"hydra_{PLUGINS[words]} is installed, so that its name is no mistake")
    answer = command("train", *words.split())
    assert answer.code == 2
    assert answer.err.startswith("vaebench train: ") or "package" in words
    assert answer.err.count("\n") == 1
    assert MISTAKES[words] in answer.err
    assert "use +" not in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_task_refuses(command):
    def task(cfg):
        raise ValueError("model.latent_dim: expected at least 1,\n  got 0")

    answer = command("train", task=task)
    assert (answer.code, answer.err) == (2, "vaebench train: model.latent_dim: expected at least 1, got 0\n")


@pytest.mark.parametrize(
    ("override", "read", "sentence"),
    [
        ("seed=${nowhere}", lambda cfg: cfg.seed, "seed: Interpolation key 'nowhere' not found"),
        ("seed=???", lambda cfg: cfg.seed, "'seed' needs a value; give seed=VALUE"),
        ("seed=3", lambda cfg: cfg.model.latnt_dim, "no key 'model.latnt_dim'; did you mean 'model.latent_dim'?"),
    ],
)
def test_what_a_task_cannot_read(command, override, read, sentence):
    answer = command("train", override, task=read)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


def test_a_failure_is_not_a_mistake(command):
    def task(cfg):
        if "trainer" in cfg:
            start_log(Path("train.log"))
        raise RuntimeError("the third term\nis not finite")

    answer = command("train", task=task)
    assert answer.code == 1
    assert answer.err.startswith(
        "vaebench train: failed: RuntimeError: the third term is not finite (traceback in train.log)"
    )
    assert answer.err.count("\n") == 1
    assert "HYDRA_FULL_ERROR" in command("sample", task=task).err  # which has no log


@pytest.mark.parametrize(
    ("error", "amount"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800000000000 bytes."),
            "745.1 GiB",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 79 GiB"), "20.00 GiB"),
        (MemoryError("Unable to allocate 74.5 GiB for an array with shape (10000000000,)"), "74.5 GiB"),
    ],
)
def test_too_little_memory_is_one_sentence(command, error, amount):
    def task(cfg):
        raise error

    answer = command("sample", task=task)
    assert answer.code == 1
    assert answer.err.startswith(f"vaebench sample: failed: not enough memory for {amount} more; lower batch_size")


def test_a_failure_of_the_disk(command):
    def task(cfg):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.state")

    answer = command("train", task=task)
    assert answer.code == 1
    assert "No space left on device: 'last.state'" in answer.err


def test_interrupted(command):
    def task(cfg):
        raise KeyboardInterrupt

    assert command("train", task=task).code == 130


def test_the_traceback_on_demand(command, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def task(cfg):
        raise ValueError("no")

    answer = command("train", task=task)
    assert "Traceback" in answer.err
    assert answer.err.endswith("vaebench train: no\n")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_no_traceback_is_left_switched_on(command):
    command("train")
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_run_directory_that_is_a_file(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        answer = command("train", f"hydra.run.dir={place}")
        assert answer.code == 2
        assert answer.err.startswith("vaebench train: hydra.run.dir: cannot write")
        assert answer.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_directory_that_cannot_be_written(command):
    # /proc refuses new folders to everybody, root included.
    answer = command("train", "hydra.run.dir=/proc/run")
    assert answer.code == 2
    assert "hydra.run.dir: cannot write '/proc/run'" in answer.err


def test_a_full_disk_before_the_start(command, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    answer = command("train", "hydra.run.dir=somewhere")
    assert answer.code == 1
    assert "no space left for the run directory 'somewhere'" in answer.err


def test_broken_yaml_of_a_user(command, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "broken.yaml").write_text("latent_dim: [3\n")
    monkeypatch.setenv("VAEBENCH_CONF", str(folder))
    answer = command("train", "model=broken")
    assert answer.code == 2
    assert "broken.yaml" in answer.err
    assert answer.err.count("\n") == 1


def test_a_folder_of_the_environment_that_is_missing(command, monkeypatch):
    monkeypatch.setenv("VAEBENCH_CONF", "/nowhere")
    for words in (["train"], ["list"]):
        answer = command(*words)
        assert answer.code == 2
        assert "VAEBENCH_CONF: there is no folder '/nowhere'" in answer.err
