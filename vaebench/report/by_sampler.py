"""Numbers that judge samples: a line for each sampler, instead of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vaebench.report.reading import PRIOR, Conditions, Record

SAMPLER = "sampler"  # the setting that tells the lines of one configuration apart


def apart(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Take the numbers about samplers out of runs.

    Args:
        records: Runs.

    Returns:
        The runs with what is theirs, samples of the prior included; and, if samples of any other sampler were judged,
        one record for each run and sampler, the prior among them, whose configuration names the sampler.
    """
    found = [record for record in records if any(v.samples not in (None, PRIOR) for v in record.values.values())]
    if not found:
        return list(records), []
    judging = {_bare(v.metric) for record in found for v in record.values.values() if v.samples is not None}
    own = [
        replace(
            record,
            values={c: v for c, v in record.values.items() if v.samples in (None, PRIOR)},
            skipped={name: why for name, why in record.skipped.items() if _bare(name) == name},
            images={name: path for name, path in record.images.items() if not name.startswith("sampler ")},
        )
        for record in records
    ]
    return own, [_of(record, name, judging) for record in found for name in _samplers(record)]


def _samplers(record: Record) -> list[str]:
    """The samplers whose samples were judged, and their temperatures where these are not 1."""
    return list(dict.fromkeys(v.samples for v in record.values.values() if v.samples is not None))


def _of(record: Record, sampler: str, judging: set[str]) -> Record:
    values = {}
    for (name, conditions), value in record.values.items():
        if value.samples == sampler:
            others = Conditions(tuple(item for item in conditions.items if item[0] != "samples"))
            values[name, others] = replace(value, metric=_bare(value.metric))
    source = sampler.split(" ")[0]
    suffix = "" if source == PRIOR else f"-{source}"
    picture = "samples" if source == PRIOR else f"sampler {source}"
    return replace(
        record,
        config={**record.config, SAMPLER: sampler},
        values=values,
        skipped={
            _bare(name): why
            for name, why in record.skipped.items()
            if name == f"{_bare(name)}{suffix}" and (suffix or name in judging)
        },
        images={name: path for name, path in record.images.items() if name == picture},
        curves={},
        notes=[],
    )


def _bare(name: str) -> str:
    """A metric's name without that of the sampler, which no metric's name contains: `fd-maf` is `fd`."""
    return name.partition("-")[0]
