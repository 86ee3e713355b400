"""Whatever stands in the files of a run or of a data set, a command ends with one sentence and an exit code of its own.

Each input is a file changed at random. Most are given to what a verb reads with, in this process; some to the whole
command, in a process of its own. No traceback, no hang, no memory above 4 GiB, nothing for a terminal to
obey, and no file touched outside the run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hostile.commands import MAX_MEMORY, SECONDS, Answer, Commands
from vaebench import factory
from vaebench.cli.errors import one_line
from vaebench.cli.main import main
from vaebench.commands.checkpoint import checkpoint_record
from vaebench.factory.bounds import bounded_by
from vaebench.report import files
from vaebench.report.grouping import make_sections
from vaebench.report.images import data_uri
from vaebench.report.reading import read_run
from vaebench.runs import provenance
from vaebench.runs.run import Run, WriteError, read_json

NUM_INPUTS = 40  # for each seed
CODES = (0, 1, 2, 130)
ESCAPE = "\x1b]0;evil\x07"
SMALL = [
    "model=vae", "model/network=mlp", "model.network.hidden_dims=[8]", "model.latent_dim=2", "trainer.num_epochs=1",
    "trainer.batch_size=20",
    "hardware=cpu", "hardware.threads=1",
]  # fmt: skip
VERBS = {
    "evaluate": ["evaluate", "run=run", "metric=[elbo]", "num_examples=20", "hardware=cpu"],
    "sample": ["sample", "run=run", "num_samples=3", "hardware=cpu"],
    "report": ["report", "run", "output=rep"],
    "resume": ["train", "resume=run", "trainer.num_epochs=2"],
}
READ_BY = {"metrics.jsonl": ["report", "resume"], "checkpoints/last.state": ["resume"], "evaluation": ["report"]}


@pytest.fixture(scope="module")
def commands():
    started = Commands()
    yield started
    started.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run that was trained, evaluated and sampled from; data sets in every form."""
    folder = tmp_path_factory.mktemp("base")
    handlers, level = logging.root.handlers[:], logging.root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *SMALL, "dataset.num_examples=60", "hydra.run.dir=run"]) == 0
        assert main(VERBS["evaluate"]) == main(VERBS["sample"]) == 0
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)
        handler.close()
    logging.root.setLevel(level)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.save(folder / "data.npy", pixels)
    np.savez_compressed(folder / "data.npz", x=pixels, y=np.arange(60) % 3)
    np.savetxt(folder / "data.csv", pixels.reshape(60, -1), "%d", ",")
    (folder / "pictures").mkdir()
    for i in range(60):
        Image.fromarray(pixels[i]).save(folder / "pictures" / f"{i}.png")
    return folder


WORDS = [
    *(ESCAPE, "\\u001b]0;evil", "${oc.env:HOME}", "!!python/object:os.system", "\ud800"),
    *("../" * 9, "&a *a", "{" * 999),
]


def flip(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(dice.choice([1, 1, 5, 100])):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def repeat(content: bytes, dice: random.Random) -> bytes:
    first, last = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:last] + content[first:last] * dice.choice([1, 3, 500]) + content[last:]


def remove(content: bytes, dice: random.Random) -> bytes:
    first = dice.randrange(len(content) + 1)
    return content[:first] + content[first + dice.choice([1, 20, 300]) :]


def number(content: bytes, dice: random.Random) -> bytes:
    """Replace a number in text."""
    places = [i for i, byte in enumerate(content[:100_000]) if chr(byte).isdigit()]
    if not places:
        return flip(content, dice)
    place = dice.choice(places)
    other = dice.choice([b"-1", b"1e999", b"NaN", b"9" * 5_000, b"null", b"0.5", b"99999999999", b'"x"', b"[]", b"{}"])
    return content[:place] + other + content[place + 1 :]


def word(content: bytes, dice: random.Random) -> bytes:
    """Put text between two others."""
    place = dice.randrange(len(content) + 1)
    return content[:place] + dice.choice(WORDS).encode("utf-8", "surrogatepass") + content[place:]


def garbage(content: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice([0, 1, 9, 4_000]))


CONTENTS: list[Callable[[bytes, random.Random], bytes]] = [
    flip,
    cut,
    repeat,
    remove,
    number,
    number,
    word,
    word,
    garbage,
]


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "victim")


def link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path, outside: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(6 * 2**30)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


def nothing(path: Path, outside: Path) -> None:
    """Leave it out."""


KINDS = [link, link_to_folder, pipe, sparse, folder, nothing]


def mutate(path: Path, outside: Path, dice: random.Random) -> str:
    """Change a file at random; return what was done."""
    if dice.random() < 0.25:
        kind = dice.choice(KINDS)
        path.unlink()
        kind(path, outside)
        return kind.__name__
    names = []
    for change in dice.choices(CONTENTS, k=dice.choice([1, 1, 1, 3])):
        path.write_bytes(change(path.read_bytes(), dice))
        names.append(change.__name__)
    return " ".join(names)


def check(what: str, outside: Path, answer: Answer) -> None:
    code, output, memory = answer
    where = f"{what}: exit {code}, {memory / 2**20:.0f} MiB\n{output[-2000:]}"
    assert code in CODES, where
    assert "Traceback" not in output, where
    assert "\x1b" not in output, where
    assert memory < MAX_MEMORY, where
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("victim", "mine")], where
    if code in (1, 2):
        assert output.strip(), where


@pytest.fixture
def outside(tmp_path):
    place = tmp_path / "outside"
    place.mkdir()
    (place / "victim").write_text("mine")
    return place


def read_for_report(run: Path, data: Any) -> None:
    records = [read_run(run)]
    sections = make_sections([record for record in records if record.problem is None])
    problems = [record for record in records if record.problem is not None]
    for text in (json.dumps(files.as_json(sections, problems)), files.as_csv(sections)):
        text.encode()
        assert "\x1b" not in text
    for record in records:
        for picture in record.images.values():
            data_uri(picture)


def read_for_evaluation(run: Path, data: Any) -> None:
    found = Run.open(run)
    found.remove_temporaries()
    factory.load_model(found, "best")
    checkpoint_record(found, "best")


def read_for_sampling(run: Path, data: Any) -> None:
    found = Run.open(run)
    factory.load_model(found, "last")
    read_json(found.samples("normal") / "diagnostics.json")


def read_for_resuming(run: Path, data: Any) -> None:
    found = Run(run)
    found.refuse_foreign()
    tree = factory.load_config(found)
    factory.check(tree)
    with bounded_by(found.last_state):
        model = factory.model(tree, data)
    trainer, hardware = factory.trainer(tree), factory.hardware(tree)
    training = trainer.start(model, data, run=found, hardware=hardware, seed=tree["seed"])
    found.read_status()
    provenance.read(found)
    found.check_metrics()
    training.check_checkpoint()


READERS = {
    "evaluate": read_for_evaluation,
    "sample": read_for_sampling,
    "report": read_for_report,
    "resume": read_for_resuming,
}


@contextlib.contextmanager
def watched(where: str) -> Iterator[None]:
    """Fail where the inside hangs, takes 4 GiB, or raises anything but what the command line tells in a line."""

    def hang(*_: object) -> None:
        raise AssertionError(f"{where}: hangs")

    least, before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    sentence = ""
    try:
        yield
    except (ValueError, WriteError) as error:
        sentence = one_line(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert "\x1b" not in sentence, where
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - least) * 1024 < MAX_MEMORY, where


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_every_file_of_a_run(base, tmp_path, outside, seed):
    dice, run = random.Random(seed), tmp_path / "run"
    names = sorted(str(path.relative_to(base / "run")) for path in (base / "run").rglob("*") if path.is_file())
    data = factory.dataset(factory.load_config(Run(base / "run")))
    for _ in range(NUM_INPUTS):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(base / "run", run)
        name = dice.choice(names)
        verbs = next((verbs for start, verbs in READ_BY.items() if name.startswith(start)), list(VERBS))
        verb, what = dice.choice(verbs), mutate(run / name, outside, dice)
        with watched(f"{verb} after {what} of {name} (seed {seed})"):
            READERS[verb](run, data)
        assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("victim", "mine")]


@pytest.mark.slow
def test_whole_commands_on_changed_runs(base, commands, tmp_path, outside):
    dice, run = random.Random(0), tmp_path / "run"
    names = sorted(str(path.relative_to(base / "run")) for path in (base / "run").rglob("*") if path.is_file())
    for verb in list(VERBS) * 3:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(base / "run", run)
        name = dice.choice(names)
        what = mutate(run / name, outside, dice)
        check(f"{verb} after {what} of {name}", outside, commands.run(tmp_path, VERBS[verb]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data.npy", "data.npz", "data.csv", "pictures"])
def test_every_form_of_data(base, tmp_path, outside, name):
    dice = random.Random(name)
    place = tmp_path / "data" / name
    kind = "images.Images" if name == "pictures" else "arrays.Arrays"
    for _ in range(NUM_INPUTS // 2):
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir()
        shutil.copytree(base / name, place) if name == "pictures" else shutil.copy(base / name, place)
        changed = dice.choice(sorted(place.iterdir())) if name == "pictures" else place
        what = mutate(changed, outside, dice)
        with watched(f"{what} of {changed.name}"):
            data = factory.dataset({"dataset": {"_target_": f"vaebench.data.{kind}", "path": str(place)}})
            data.train.batch(torch.arange(min(5, len(data.train))))
