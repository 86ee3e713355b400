"""What an option does, small and comparable: weights, losses, draws, numbers, examples, files.

Each function takes the plain configuration of a verb and the folder of a test, and returns values that are equal for
equal behaviour; tests/contracts/test_options.py changes one key and looks whether they change.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from vaebench import factory
from vaebench.cli.composing import Composer
from vaebench.cli.sweeper import TrainingSweeper
from vaebench.core import Batch
from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import seed_everything
from vaebench.metrics.subject import Subject
from vaebench.models.ebm import EBM
from vaebench.models.rhvae import RHVAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import MLP, Conv
from vaebench.runs.run import Run
from vaebench.samplers.latents import prepare
from vaebench.sweeps.local import LocalPool
from vaebench.sweeps.pool import Outcome
from vaebench.sweeps.record import Job, Sweep, continued
from vaebench.sweeps.slurm import SlurmPool

Tree = dict[str, Any]


class Toy(Dataset):
    """Grey pictures of three kinds, 8x8, with labels and factors of variation."""

    name = "toy"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randint(2, 15, (3, 1, 8, 8), generator=generator)

        def examples(n: int) -> Examples:
            y = torch.arange(n) % 3
            x = centres[y] + torch.randint(-2, 3, (n, 1, 8, 8), generator=generator)
            factors = torch.stack([y, torch.arange(n) // 3 % 2], 1)
            return Examples(x.clamp(0, 16).to(torch.uint8), y, factors=factors)

        super().__init__(
            examples(60),
            examples(24),
            examples(24),
            likelihood_name="binomial",
            likelihood_arguments={"total_count": 16},
            scale=16,
            num_classes=3,
            factor_names=("kind", "half"),
            factor_sizes=(3, 2),
        )


DATA = Toy()
CPU = Hardware(device="cpu", threads=1)


def plain(value: Any) -> Any:
    """Values that `==` compares: tensors and arrays as shape and bytes."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return repr(value)


def small(cfg: Tree) -> Tree:
    """Narrow networks and few latent dimensions, where the configuration has them."""
    sizes = {"hidden_dims": 12, "channels": 4, "hidden_dim": 8, "block_channels": 4}

    def narrow(node: Tree) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                narrow(value)
            elif key == "groups":
                node[key] = [min(count, 1) for count in value]
            elif key in sizes and value:
                node[key] = [sizes[key]] * len(value) if isinstance(value, list) else sizes[key]

    narrow(cfg["model"])
    if "latent_dim" in cfg["model"]:
        cfg["model"]["latent_dim"] = 3
    return cfg


def first_batch() -> Batch:
    return DATA.train.batch(torch.arange(20))


def model(cfg: Tree, folder: Path) -> Any:
    """Weights, losses before and after two steps of each part, statistics of an epoch, what it decodes and draws."""
    seed_everything(0)
    built = factory.model(cfg, DATA)
    batch, found = first_batch(), [built.state_dict()]
    built.before_training(DATA.train)
    if "energy" in built.capabilities:
        found += [built.energy(batch.x), built.noisy(batch.x)]
    if built.trainer == "contrastive_divergence":  # there is no loss of a batch alone
        return plain(found)
    for step in range(2):
        losses = built.losses(batch, step)
        found.append({name: (loss.total, loss.terms) for name, loss in losses.items()})
        for name, modules in built.parts().items():
            parameters = [p for module in modules for p in module.parameters()]
            gradients = torch.autograd.grad(losses[name].total, parameters, retain_graph=True, allow_unused=True)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        parameter -= 1e-3 * gradient
        built.after_step(batch)
    built.eval()
    with torch.no_grad():
        built.end_epoch(DATA.train, 20)
        found += [built.validation_loss(batch, 2).total, built.state_dict()]
        if not {"prior", "likelihood"} - built.capabilities:
            found.append(built.sample(4, y=built.draw_labels(4)))
    return plain(found)


def beta(cfg: Tree, folder: Path) -> Any:
    """The values of a schedule."""
    schedule = factory.model(cfg, DATA).beta
    return [float(schedule(step)) for step in range(0, 50_000, 500)]


def trainer(cfg: Tree, folder: Path) -> Any:
    """The weights and numbers that a training of twelve steps ends with."""
    seed_everything(0)
    built = factory.model(cfg, DATA)
    training = factory.trainer(cfg).train(built, DATA, hardware=CPU, seed=1)
    return plain([built.state_dict(), training.step, training.epoch, training.best, training.stop_reason])


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("vaebench")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def callback(cfg: Tree, folder: Path) -> Any:
    """The files that a run ends with, and what was said."""
    seed_everything(0)
    built = factory.model(cfg, DATA)
    with listening() as said:
        factory.trainer(cfg).train(built, DATA, run=Run(folder), callbacks=factory.callbacks(cfg), hardware=CPU, seed=1)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    clocks = ("status.json",)
    return [said, [(str(path.relative_to(folder)), path.read_bytes()) for path in files if path.name not in clocks]]


def latent_model() -> Any:
    """A model with everything that targets and metrics ask for: prior, rate and a metric of the latent space."""
    seed_everything(0)
    network = MLP(hidden_dims=(12,))
    built = RHVAE(DATA.shape, likelihood=DATA.likelihood, latent_dim=2, network=network, metric_network=network)
    with torch.no_grad():
        built.posterior_head.linear.weight[:2] *= 10  # codes that vary, as those of a trained model
        built.end_epoch(DATA.train, 20)
    return built.eval()


def code_model() -> Any:
    """A model whose latents are codes, four positions of eight."""
    seed_everything(0)
    network = Conv(channels=(4, 4), stride=2, hidden_dim=0)
    quantizer = VectorQuantizer(num_embeddings=8, embedding_dim=2, kmeans_iterations=5)
    built = VQVAE(DATA.shape, likelihood=DATA.likelihood, network=network, quantizer=quantizer)
    built.before_training(DATA.train)
    return built.eval()


def energy_model() -> Any:
    """A model that is an energy of its data."""
    seed_everything(0)
    built = EBM(DATA.shape, network=MLP(hidden_dims=(12,), activation="silu"))
    built.before_training(DATA.train)
    return built.eval()


def sampler(cfg: Tree, folder: Path) -> Any:
    """Draws, and the report on their chains."""
    made, built = factory.sampler(cfg), None
    if made.needs_model:
        makers = {"codes": code_model, "energy": energy_model}
        built = next((make for need, make in makers.items() if need in made.needs), latent_model)()
    seed_everything(3)
    prepare(made, built, DATA.train)
    draws = made.sample(7)
    return plain([draws.z, draws.y, made.diagnostics()])


def metric(cfg: Tree, folder: Path) -> Any:
    """The numbers of a metric, and its details."""
    (made,) = factory.metrics(cfg).values()
    built = energy_model() if "energy" in made.needs else latent_model()
    return plain(made(built, DATA.test, dataset=DATA, extractor=factory.extractor(cfg)).as_json())


def extractor(cfg: Tree, folder: Path) -> Any:
    """Features of pictures."""
    return plain(Subject(latent_model(), DATA.test, extractor=factory.extractor(cfg)).features(DATA.test.x))


def dataset(cfg: Tree, folder: Path) -> Any:
    """Examples of every split, labels, and the likelihood."""
    seed_everything(0)
    made = factory.dataset(cfg)
    found: list[Any] = [made.shape, made.likelihood_config(), made.num_classes]
    for split in (made.train, made.validation, made.test):
        batch = split.batch(torch.arange(min(len(split), 40)))
        found += [len(split), batch.x, batch.y, batch.factors]
    return plain(found)


def hardware(cfg: Tree, folder: Path) -> Any:
    """What preparing leaves set, how a batch and a function come back, and where the jobs of a sweep go."""
    made = factory.hardware(cfg)
    before = torch.get_num_threads()
    try:
        made.prepare()
        with made.autocast():
            dtype = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        picture = made.prepared(Batch(torch.zeros(2, 3, 4, 4))).x
        return plain(
            [
                made.describe(),
                dtype,
                picture.stride(),
                made.compiled(plain) is plain,
                torch.are_deterministic_algorithms_enabled(),
                pool(cfg, folder),
            ]
        )
    finally:
        CPU.prepare()
        torch.set_num_threads(before)


def pool(cfg: Tree, folder: Path) -> Any:
    """The script of a Slurm job and how often it may go back into the queue; of processes how many, and how long."""
    sweeper = TrainingSweeper()
    config = OmegaConf.create({"hardware": cfg["hardware"], "hydra": {"launcher": {}}})
    sweeper.setup(hydra_context=None, task_function=None, config=config)
    place, made = sweeper._pool()
    if isinstance(made, SlurmPool):
        jobs = continued(folder / "s", [], place, [["seed=0"], ["seed=1"]])
        requeues = made._executor(jobs, check=False).max_num_timeout
        return [made.describe(jobs, jobs.jobs).replace(str(folder), ""), requeues]
    return [made.capacity, made.timeout_min] if isinstance(made, LocalPool) else place


class Ends:
    """A pool whose jobs end at once, or are interrupted; what they validate follows from their words."""

    capacity = None

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.cancelled: set[int] = set()

    def submit(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.words.append(job.overrides)
            value = dict(word.split("=") for word in job.overrides)
            x, n = float(value["model.latent_dim"]), float(value["seed"])
            rows = [
                {"step": epoch, "epoch": epoch, "split": "validation", "loss": (x - 7) ** 2 + n - epoch, "rate": x}
                for epoch in (1, 2, 3)
            ]
            run = sweep.run(job).path
            run.mkdir(parents=True)
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def is_under_way(self, sweep: Sweep, job: Job) -> bool:
        return False

    def outcome(self, sweep: Sweep, job: Job) -> Outcome:
        return Outcome("interrupted" if job.number in self.cancelled else "done")

    def cancel(self, sweep: Sweep, job: Job) -> None:
        self.cancelled.add(job.number)

    def describe(self, sweep: Sweep, jobs: Sequence[Job]) -> str:
        return ""


def sweep(cfg: Tree, folder: Path) -> Any:
    """The words of the jobs and which were given up, what was said and printed, and the files of the record."""
    ends = Ends()
    kind = type("Sweeper", (TrainingSweeper,), {"_pool": lambda self: ("slurm", ends)})
    place = folder / "s"
    config = OmegaConf.create({"sweep": cfg["sweep"], "hardware": {}, "hydra": {"sweep": {"dir": str(place)}}})
    sweeper = kind()
    sweeper.setup(hydra_context=SimpleNamespace(config_loader=None), task_function=None, config=config)
    printed = io.StringIO()
    with (
        listening() as said,
        mock.patch("vaebench.cli.sweeper._detach"),
        mock.patch("vaebench.cli.sweeper.examine"),
        mock.patch.object(Composer, "__call__", return_value={}),
        mock.patch("vaebench.cli.sweeper.show_study"),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        sweeper.sweep(["model.latent_dim=range(2,20)", "seed=range(0,3)"])
    files = sorted(path.name for path in place.glob("*"))
    return [ends.words, sorted(ends.cancelled), said, printed.getvalue().replace(str(folder), ""), files]


def own_list(folder: Path) -> Path:
    """A file with two jobs."""
    file = folder / "jobs.txt"
    file.write_text("trainer.batch_size=20\ntrainer.batch_size=30\n")
    return file


def own_files(folder: Path) -> tuple[Path, Path]:
    """An .npz file with two arrays and two kinds of labels, and a folder of pictures."""
    values = np.random.default_rng(0).integers(0, 256, (50, 3, 6, 3), dtype=np.uint8)
    file, pictures = folder / "x.npz", folder / "pictures"
    np.savez(file, x=values, other=255 - values, y=np.arange(50) % 5, z=np.arange(50) % 3)
    pictures.mkdir(exist_ok=True)
    for number, picture in enumerate(values[:30]):
        Image.fromarray(picture.transpose(1, 2, 0)).save(pictures / f"{number}.png")
    return file, pictures


OF_GROUP: dict[str, Callable[[Tree, Path], Any]] = {
    "model": model,
    "model/beta": beta,
    "trainer": trainer,
    "callback": callback,
    "sampler": sampler,
    "kernel": sampler,
    "target": sampler,
    "metric": metric,
    "extractor": extractor,
    "dataset": dataset,
    "hardware": hardware,
    "sweep": sweep,
}


def of(group: str) -> Callable[[Tree, Path], Any]:
    """What shows the effect of an option of a group; a part of a model shows in the model."""
    return OF_GROUP.get(group) or OF_GROUP[group.partition("/")[0]]
