"""The README's tables of what discrete and conditional models learn: code priors against uniform codes, draws as asked.

    python scripts/learning_table.py digits                              the embedded digits, a few minutes on one core
    python scripts/learning_table.py mnist --root data --examples 4000   also fashion_mnist

A classifier that is trained on the same examples judges: its features for the Fréchet distance of samples to the test
split, its answers for the share of a conditional model's samples that are what was asked for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.core import Draws
from vaebench.data.digits import Digits
from vaebench.data.fashion_mnist import FashionMNIST
from vaebench.data.mnist import MNIST
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.metrics.code_length import CodeLength
from vaebench.metrics.codebook import Codebook
from vaebench.metrics.fd import FD
from vaebench.models import VQVAE, BetaVAEWithCapacity, ConditionalVAE
from vaebench.networks import Conv
from vaebench.runs.images import save_image
from vaebench.samplers import CodeTransformerSampler, PixelCNNSampler
from vaebench.samplers.latents import decode, encode
from vaebench.trainers import BaseTrainer

NETWORK = Conv((32, 64), hidden_dim=0, kernel_size=4, stride=2)
QUANTIZER = VectorQuantizer(num_embeddings=64, embedding_dim=16, kmeans_iterations=10)
PRIORS = {
    "pixelcnn": lambda: PixelCNNSampler(hidden_channels=64, num_blocks=3, num_epochs=30),
    "code_transformer": lambda: CodeTransformerSampler(hidden_channels=64, num_blocks=3, num_epochs=60),
}


class Classifier(nn.Module):
    """Features (B, 64) of pictures, and their classes."""

    name = "classifier"

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = Conv((16, 32), hidden_dim=64).encoder(shape)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    def classes(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self(some)).argmax(1) for some in x.split(500)])

    def learn(self, x: Tensor, y: Tensor, num_steps: int = 1000) -> None:
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        for _ in range(num_steps):
            rows = torch.randint(len(x), (100,))
            loss = F.cross_entropy(self.head(self(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.requires_grad_(False)


def discrete(data, classifier, options, seed: int) -> dict[str, float]:
    """Train a VQ-VAE and both priors; nats, perplexity, distances of samples."""
    torch.manual_seed(seed)
    model = VQVAE(data.shape, likelihood=data.likelihood, network=NETWORK, quantizer=QUANTIZER)
    BaseTrainer(num_epochs=options.epochs).train(model, data, seed=seed)
    model.eval()
    test = data.test.subset(range(min(2000, len(data.test))))
    used = Codebook()(model, test).values
    found = {name.removeprefix("codebook_"): estimate.value for name, estimate in used.items()}
    latents = encode(model, data.train)
    n = min(1000, len(test))
    judge = {"extractor": classifier, "dataset": data}

    def distance(name: str, z: Tensor) -> None:
        images = decode(model, Draws(z))
        save_image(options.output / f"{data.name}-{seed}-{name}.png", images[:64])
        judged = FD(n)(model, test, draw=lambda num: images[:num], **judge)
        found[f"fd of {name}"] = judged.values["fd_classifier"].value

    distance("encoded", encode(model, test).z[:n])
    uniform = torch.randint(model.quantizer.num_codes, (n, *model.codes_shape))
    distance("uniform", model.embed_codes(uniform))
    for name in options.priors:
        sampler = PRIORS[name]().setup(model).fit(latents)
        start = time.perf_counter()
        draws = sampler.sample(n)
        found[f"seconds of {name}"] = time.perf_counter() - start
        distance(name, draws.z)
        result = CodeLength()(model, test, code_prior=sampler)
        found["uniform nats"] = result.details["uniform_rate_nats"]
        found[f"{name} nats"] = result.values["code_length_nats"].value
        found[f"{name} -elbo"] = -result.values["code_elbo_nats"].value
    return found


def conditional(data, classifier, options, seed: int) -> dict[str, float]:
    """Train a conditional VAE with each condition; the share of samples that are classified as asked."""
    found = {}
    for condition in ("concat", "film", "add"):
        torch.manual_seed(seed)
        model = ConditionalVAE(data.shape, likelihood=data.likelihood, num_classes=10, condition_type=condition)
        BaseTrainer(num_epochs=options.epochs).train(model, data, seed=seed)
        model.eval()
        y = torch.arange(10).repeat_interleave(100)
        images = model.sample(1000, y=y)
        found[f"{condition} as asked"] = (classifier.classes(images) == y).double().mean().item()
        rows = torch.cat([images[k * 100 : k * 100 + 10] for k in range(10)])
        save_image(options.output / f"{data.name}-{seed}-{condition}.png", rows, columns=10)
    return found


def capacity(data, classifier, options, seed: int) -> dict[str, float]:
    """Train with a capacity of 20 nats that is reached at half time; the rate after a quarter, a half and all of it."""
    torch.manual_seed(seed)
    steps = options.epochs * -(-len(data.train) // 100)
    model = BetaVAEWithCapacity(
        data.shape, likelihood=data.likelihood, gamma=100.0, capacity_max=20.0, capacity_num_iter=steps // 2
    )
    found, batch = {}, data.validation.batch(torch.arange(min(len(data.validation), 1000)))
    training = model.after_step
    done = 0

    def watch(train_batch) -> None:
        nonlocal done
        training(train_batch)
        done += 1
        if done in (steps // 4, steps // 2, steps):
            with torch.no_grad():
                found[f"rate at C = {model.capacity(done):.0f}, step {done}"] = (
                    model.distortion_and_rate(batch.x)[1].mean().item()
                )

    model.after_step = watch
    BaseTrainer(num_steps=steps, batch_size=100).train(model, data, seed=seed)
    return found


PARTS = {"discrete": discrete, "conditional": conditional, "capacity": capacity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("digits", "mnist", "fashion_mnist"))
    parser.add_argument("--root", default="data", help="where the data lie")
    parser.add_argument("--examples", type=int, default=None, help="of the training split; all by default")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--output", type=Path, default=Path("outputs/learning-table"), help="where pictures go")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    kinds = {"mnist": MNIST, "fashion_mnist": FashionMNIST}
    sizes = {"num_examples": options.examples, "num_validation": 1000}
    data = Digits() if options.dataset == "digits" else kinds[options.dataset](options.root, **sizes)

    torch.manual_seed(0)
    classifier = Classifier(data.shape)
    train, test = (split.batch(torch.arange(len(split))) for split in (data.train, data.test))
    classifier.learn(train.x, train.y)
    accuracy = (classifier.classes(test.x) == test.y).double().mean().item()
    print(f"{data.name}: {len(train)} examples, {options.epochs} epochs; classifier {accuracy:.3f}", flush=True)
    for name in options.parts:
        runs = []
        for seed in options.seeds:
            runs.append(PARTS[name](data, classifier, options, seed))
            print(name, seed, {key: round(value, 3) for key, value in runs[-1].items()}, flush=True)
        for key in runs[0]:
            values = [run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
            print(f"| {data.name} | {key} | {statistics.mean(values):.4g}{spread} |", flush=True)


if __name__ == "__main__":
    main()
