"""Configurations of many jobs: composed once for each choice of options, and the same as Hydra composes them."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from vaebench.cli.composing import NOT_OF_A_JOB, Composer
from vaebench.factory.configurations import conf_dir


@pytest.fixture(scope="module")
def composer():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        config = hydra.compose_config("train", [], run_mode=RunMode.RUN, with_log_configuration=False)
        loads = []
        loader = hydra.config_loader

        class Context:
            class config_loader:  # noqa: N801 - stands for an object
                get_group_options = staticmethod(loader.get_group_options)

                @staticmethod
                def load_sweep_config(master, words):
                    loads.append(words)
                    return loader.load_sweep_config(master, words)

        yield Composer(Context, config), loader, config, loads


@pytest.mark.parametrize(
    "words",
    [
        ["model=iwae", "seed=3", "trainer.learning_rate=1e-4"],
        ["model=iwae", "seed=4", "trainer.optimizer=SGD", "trainer.optimizer_args={momentum:0.9}"],
        ["model.network.hidden_dims=[3,4]", "init_from=null", "trainer.num_steps=5", "hardware.deterministic=true"],
        ["model=iwae", "+trainer.optimizer_args.momentum=0.5", "~callback.images"],
        ["model.latent_dim=${seed}", "seed=7"],
    ],
)  # fmt: skip
def test_it_is_what_hydra_composes(composer, words):
    compose, loader, config, _ = composer
    whole = loader.load_sweep_config(config, words)
    own = OmegaConf.masked_copy(whole, [key for key in whole if key not in NOT_OF_A_JOB])
    assert compose(words) == OmegaConf.to_container(own, resolve=True)


def test_jobs_with_the_same_options_are_composed_once(composer):
    compose, _, _, loads = composer
    loads.clear()
    found = [compose(["model=wae_mmd", f"seed={seed}", f"trainer.batch_size={seed + 1}"]) for seed in range(5)]
    assert loads == [["model=wae_mmd"]]
    assert [(tree["seed"], tree["trainer"]["batch_size"]) for tree in found] == [(n, n + 1) for n in range(5)]


def test_a_key_that_there_is_not_is_refused(composer):
    with pytest.raises(Exception, match="Could not override"):
        composer[0](["trainer.lr=1"])
