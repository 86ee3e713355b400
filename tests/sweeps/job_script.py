"""The script that stands in for jobs, here and on a cluster; jobs import this module, so it imports little."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

# What a job does follows from the word `trainer.optimizer=`, which needs no class here; `active` and `log` say which
# ran at the same time, and how often.
JOB = r"""#!/bin/sh
kind=done
verb=$1
for word in "$@"; do
    case $word in
        hydra.run.dir=*) run=${word#hydra.run.dir=} ;;
        run=*) run=${word#run=} ;;
        output=*) output=${word#output=} ;;
        sampler=*) sampler=${word#sampler=} ;;
        trainer.optimizer=*) kind=${word#trainer.optimizer=} ;;
        metric=*) metric=$(echo "${word#metric=}" | tr -d '[]' | tr ',' ' ') ;;
        samples=*) samples=-${word#samples=} ;;
    esac
done
here=${0%/*}
echo "$*" >> "$here/log"
: > "$here/active/$$"
set -- "$here"/active/*
echo $# >> "$here/counts"
trap 'rm -f "$here/active/$$"; exit 130' TERM
mkdir -p "$run"
case $kind in
    raises) echo "vaebench $verb: no luck" >&2; rm -f "$here/active/$$"; exit 1 ;;
    killed) rm -f "$here/active/$$"; kill -KILL $$ ;;
    crashes) [ -e "$here/go" ] || { rm -f "$here/active/$$"; kill -KILL $PPID; exit 1; } ;;  # what a cluster started
    eats) rm -f "$here/active/$$"; exec python3 -c "
import time
eaten = bytearray(400_000_000)
for place in range(0, len(eaten), 4096): eaten[place] = 1
time.sleep(20)" ;;
    waits)
        trap '' USR2
        : > "$run/started"
        n=0; while [ ! -e "$here/go" ] && [ $n -lt 2000 ]; do n=$((n + 1)); sleep 0.05; done ;;
esac
case $verb in
    train) echo '{"status": "done", "epoch": 1, "step": 1}' > "$run/status.json" ;;
    sample) mkdir -p "$run/samples/$sampler"; echo '{}' > "$run/samples/$sampler/diagnostics.json" ;;
    evaluate)
        mkdir -p "$run/evaluation"
        for name in $metric; do echo '{}' > "$run/evaluation/$name$samples.json"; done ;;
    report) mkdir -p "$output"; : > "$output/report.html" ;;
esac
rm -f "$here/active/$$"
"""


@dataclass(frozen=True)
class Script:
    """The same for a cluster: what a job calls there."""

    script: str
    words: tuple[str, ...]

    def __call__(self) -> None:
        """Run the script; raise where it fails."""
        subprocess.run([self.script, *self.words], check=True)
