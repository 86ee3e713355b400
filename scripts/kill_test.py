"""Kill training runs with SIGKILL at random moments, continue them, and compare every byte with a run left alone.

    python scripts/kill_test.py --kills 200 --models vae,rhvae,aae,rae_l2,vae_gan

Processes are forked from one that has imported everything, so that a kill costs the time of the training only.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import vaebench

OVERRIDES = (
    "dataset.num_examples=300",
    "trainer.num_epochs=4",
    "trainer.batch_size=40",
    "trainer.ema_decay=0.9",
    "trainer.scheduler=cosine",
    "trainer.warmup_steps=5",
    "callback=[checkpoint,pictures,optimizer_monitor]",
    "callback.checkpoint.every_seconds=0",
    "callback.images.every_epochs=2",
    "hardware=cpu",
    "hardware.threads=1",
)


def start(arguments: list[str], log: Path) -> int:
    """Fork a process that runs one `vaebench train`; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["vaebench", "train", *arguments]
        from vaebench.cli.main import main

        code = main() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def results(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on what happened to the run."""
    files = [*folder.glob("checkpoints/*"), *folder.glob("images/*"), folder / "metrics.jsonl"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(files)}


def whole_run(arguments: list[str], folder: Path, log: Path) -> float:
    """Run once without a kill; seconds."""
    began = time.monotonic()
    _, status = os.waitpid(start([*arguments, f"hydra.run.dir={folder}"], log), 0)
    if status != 0:
        sys.exit(f"the run that was left alone failed; see {log}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def killed_run(arguments: list[str], folder: Path, log: Path, seconds: float, dice: random.Random) -> int:
    """Run until it ends by itself, killing it on the way at least once; the number of kills."""
    kills = 0
    while True:
        child = start([*arguments, f"hydra.run.dir={folder}"], log)
        deadline = time.monotonic() + dice.uniform(0, seconds)
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))
        else:
            if kills == 0 or dice.random() < 0.5:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills += 1
            continue
        if status != 0:
            sys.exit(f"a continued run failed ({status}); see {log}:\n{log.read_text()[-2000:]}")
        return kills


def test(model: str, num_kills: int, folder: Path, dice: random.Random, extra: list[str]) -> int:
    """Kill runs of one model until there were enough kills; the number of runs that differ."""
    words = dict(word.split("=", 1) for word in (f"model={model}", *OVERRIDES, *extra))  # the last word counts
    arguments = [f"{key}={value}" for key, value in words.items()]
    log = folder / f"{model}.log"
    whole = folder / f"{model}-whole"
    seconds = whole_run(arguments, whole, log)
    expected = results(whole)
    kills = runs = wrong = 0
    while kills < num_kills:
        runs += 1
        parted = folder / f"{model}-{runs}"
        kills += killed_run(arguments, parted, log, seconds, dice)
        found = results(parted)
        differing = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        if differing:
            wrong += 1
            print(f"{model}: run {runs} differs in {', '.join(sorted(differing))} (kept: {parted})", flush=True)
        else:
            shutil.rmtree(parted)
    print(f"{model}: {kills} kills in {runs} runs of {seconds:.1f} s, {wrong} runs differ", flush=True)
    return wrong


def import_everything() -> None:
    """Import the package once, before the forks."""
    for module in pkgutil.walk_packages(vaebench.__path__, "vaebench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="vae,aae,rae_l2", help="comma-separated (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=200, help="kills for each model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="further words for vaebench train")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import_everything()
    folder = Path(tempfile.mkdtemp(prefix="vaebench-kill-"))
    dice = random.Random(given.seed)
    wrong = sum(test(model, given.kills, folder, dice, given.overrides) for model in given.models.split(","))
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
