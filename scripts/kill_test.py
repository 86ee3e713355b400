"""Kill training runs with SIGKILL, continue them, and compare every byte with a run that was left alone.

    python scripts/kill_test.py                                      around each rename of a checkpoint; seconds a model
    python scripts/kill_test.py --kills 200 --models vae,rhvae,aae   at random moments; a minute or more a model

Processes are forked from one that has imported everything, so that a kill costs the time of the training only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from vaebench.cli.main import main as main_of_vaebench
from vaebench.runs.run import Run

Moment = tuple[str, str, int]  # before, amid or after; the n-th write, of this process, of the file of that name
# One process for each, which the next continues. The first checkpoint of a process is from before its first step.
CHOSEN: tuple[Moment, ...] = (
    ("before", "last.safetensors", 1),
    ("after", "last.safetensors", 1),
    ("after", "last.state", 1),
    ("amid", "metrics.jsonl", 1),
    ("before", "best.safetensors", 1),
    ("after", "best.safetensors", 1),
    ("before", "last.state", 2),
    ("after", "last.state", 2),  # the first epoch is done
    ("after", "last.state", 3),  # the third
    ("before", "reconstructions.png", 1),  # all of them
    ("after", "reconstructions.png", 1),
    ("before", "provenance.json", 2),
)
OVERRIDES = (
    "dataset.num_examples=200",
    "trainer.num_epochs=4",
    "trainer.batch_size=40",
    "trainer.ema_decay=0.9",
    "trainer.scheduler=cosine",
    "trainer.warmup_steps=5",
    "callback=[checkpoint,images,optimizer_monitor]",
    "callback.checkpoint.every_seconds=0",
    "callback.images.every_epochs=2",
    "hardware=cpu",
    "hardware.threads=1",
)


def start(arguments: list[str], log: Path, moment: Moment | None = None) -> int:
    """Fork a process that runs one `vaebench train`, and kills itself at a moment; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if moment is not None:
            kill_at(moment)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["vaebench", "train", *arguments]
        code = main_of_vaebench() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_at(moment: Moment) -> None:
    """Let this process kill itself at a moment."""
    when, name, number = moment
    replace, append = os.replace, Run.append_metrics
    counts: dict[str, int] = {}

    def is_now(path: Path) -> bool:
        counts[path.name] = counts.get(path.name, 0) + 1
        return path.name == name and counts[name] == number

    def replace_or_die(source: Path, target: Path) -> None:
        now = is_now(Path(target))
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def append_or_die(run: Run, rows: list[dict[str, object]]) -> None:
        now = is_now(run.metrics)
        append(run, rows)
        if now and when == "amid":
            os.truncate(run.metrics, run.metrics.stat().st_size - 5)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die  # type: ignore[assignment]
    Run.append_metrics = append_or_die  # type: ignore[assignment,method-assign]


def run_killed_at(moments: tuple[Moment, ...], arguments: list[str], folder: Path, log: Path) -> Iterator[str]:
    """Kill one process at each moment, and let the last run to the end; yield what went wrong."""
    for moment in moments:
        _, status = os.waitpid(start([*arguments, f"hydra.run.dir={folder}"], log, moment), 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            yield f"'{' '.join(map(str, moment))}' never came (status {status}); see {log}"
        for file in folder.glob("*.json"):
            json.loads(file.read_text())
    _, status = os.waitpid(start([*arguments, f"hydra.run.dir={folder}"], log), 0)
    if status != 0:
        yield f"a continued run failed ({status}); see {log}:\n{log.read_text()[-2000:]}"


def results(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on what happened to the run."""
    files = [*folder.glob("checkpoints/*"), *folder.glob("images/*"), folder / "metrics.jsonl"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(files)}


def whole_run(arguments: list[str], folder: Path, log: Path) -> float:
    """Run once without a kill, in this process, so that those forked later find all modules loaded; seconds."""
    began = time.monotonic()
    with open(log, "w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code = main_of_vaebench(["train", *arguments, f"hydra.run.dir={folder}"])
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
        handler.close()
    if code != 0:
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


def differing(whole: Path, parted: Path) -> list[str]:
    """The files that two runs do not have in common, byte by byte."""
    expected, found = results(whole), results(parted)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def words_of(model: str, extra: list[str]) -> list[str]:
    """The words of a small training; the last one for a key counts."""
    words = dict(word.split("=", 1) for word in (f"model={model}", *OVERRIDES, *extra))
    if words.get("callback.images") == "null":
        words = {key: value for key, value in words.items() if not key.startswith("callback.images.")}
    return [f"{key}={value}" for key, value in words.items()]


def test_chosen(model: str, folder: Path, extra: list[str]) -> int:
    """Kill a run of one model at every chosen moment that it has; the number of mistakes."""
    arguments, log = words_of(model, extra), folder / f"{model}.log"
    whole, parted = folder / f"{model}-whole", folder / f"{model}-parted"
    whole_run(arguments, whole, log)
    moments = tuple(moment for moment in CHOSEN if list(whole.rglob(moment[1])))  # some are of pictures
    mistakes = list(run_killed_at(moments, arguments, parted, log))
    mistakes += [f"{name} differs (kept: {parted})" for name in differing(whole, parted)]
    for mistake in mistakes:
        print(f"{model}: {mistake}")
    print(f"{model}: {len(moments)} chosen moments, {len(mistakes)} mistakes", flush=True)
    return len(mistakes)


def test_random(model: str, num_kills: int, folder: Path, dice: random.Random, extra: list[str]) -> int:
    """Kill runs of one model until there were enough kills; the number of runs that differ."""
    arguments, log = words_of(model, extra), folder / f"{model}.log"
    whole = folder / f"{model}-whole"
    seconds = whole_run(arguments, whole, log)
    kills = runs = wrong = 0
    while kills < num_kills:
        runs += 1
        parted = folder / f"{model}-{runs}"
        kills += killed_run(arguments, parted, log, seconds, dice)
        names = differing(whole, parted)
        if names:
            wrong += 1
            print(f"{model}: run {runs} differs in {', '.join(names)} (kept: {parted})", flush=True)
        else:
            shutil.rmtree(parted)
    print(f"{model}: {kills} kills in {runs} runs of {seconds:.1f} s, {wrong} runs differ", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="vae,aae,rae_l2", help="comma-separated (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=0, help="kills at random moments; 0: at each of the chosen ones")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="further words for vaebench train")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vaebench-kill-"))
    dice = random.Random(given.seed)
    wrong = 0
    for number, model in enumerate(given.models.split(",")):
        if given.kills:
            wrong += test_random(model, given.kills, folder, dice, given.overrides)
        else:  # pictures are written in one way, whatever the model, and take longer than all else
            without_pictures = ["callback.images=null"] if number else []
            wrong += test_chosen(model, folder, [*without_pictures, *given.overrides])
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
