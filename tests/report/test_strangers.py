"""One damaged or hostile run among good ones takes nothing from the report, and its text stays text in every format."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tests.report.runs import config, write_run
from vaebench.report import files, page, table
from vaebench.report.grouping import make_sections
from vaebench.report.images import data_uri
from vaebench.report.reading import find_runs, read_run
from vaebench.runs.run import write_atomic, write_json

ESCAPE = "\x1b]0;evil\x07"
HUGE = "9" * 5_000


def evaluation(run, **changes):
    entry = {"value": -1.0, "standard_error": 0.5, "n": 10, "unit": "nats", "better": "higher", **changes}
    content = {"settings": {"split": "test", "checkpoint": {"name": "best"}}, "values": {"elbo_nats": entry}}
    write_json(run.path / "evaluation" / "elbo.json", content)


def raw_evaluation(text):
    return lambda run: write_atomic(run.path / "evaluation" / "elbo.json", text)


def configured(**changes):
    return lambda run: write_atomic(run.config, yaml.safe_dump({**config(), **changes}))


def appended(text):
    return lambda run: write_atomic(run.config, yaml.safe_dump(config()) + text)


def rows(*losses, epochs=None):
    def write(run):
        lines = [
            json.dumps({"step": i, "epoch": i if epochs is None else epochs[i], "split": "validation", "loss": loss})
            for i, loss in enumerate(losses)
        ]
        write_atomic(run.metrics, "".join(f"{line}\n" for line in lines))

    return write


def png(width, height, kind=b"IDAT", data=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(kind, zlib.compress(data)) + chunk(b"IEND", b"")


def picture(content):
    return lambda run: write_atomic(run.images / "samples.png", content)


def many_values(run):
    values = {f"v{i}": {"value": i} for i in range(10_000)}
    write_json(run.path / "evaluation" / "many.json", {"settings": {}, "values": values})


def many_files(run):
    for i in range(300):
        write_json(run.path / "evaluation" / f"m{i}.json", {"skipped": "x"})
        write_atomic(run.path / "samples" / f"s{i}" / "grid.png", b"")


FORMS = {
    "infinite range": rows(1e308, -1e308),
    "largest": rows(1.7e308, 1e308),
    "least": rows(5e-324, 0.0),
    "late epoch": rows(1.0, 2.0, epochs=[2**53 - 1, 0]),
    "epoch beyond numbers": rows(1.0, 2.0, epochs=[10**300, 2]),
    "fractional epoch": rows(1.0, 2.0, epochs=[1e308, -1e308]),
    "loss is text": rows("x", ESCAPE, None, [1], {"a": 1}),
    "long history": rows(*(1.0 for _ in range(30_000))),
    "huge int in metrics": lambda run: write_atomic(run.metrics, f'{{"epoch": {HUGE}}}\n'),
    "sparse metrics": lambda run: os.truncate(run.metrics, 2**36),
    "sparse status": lambda run: os.truncate(run.status, 2**36),
    "sparse configuration": lambda run: os.truncate(run.config, 2**36),
    "huge value": lambda run: evaluation(run, value=1e308, standard_error=1e308),
    "value beyond floats": raw_evaluation(
        f'{{"settings": {{}}, "values": {{"elbo_nats": {{"value": 1{"0" * 400}}}}}}}'
    ),
    "value of thousands of digits": raw_evaluation(f'{{"values": {{"elbo_nats": {{"value": {HUGE}}}}}}}'),
    "tiny error": lambda run: evaluation(run, value=-9e99, standard_error=1e-300),
    "negative error": lambda run: evaluation(run, standard_error=-1.0),
    "odd entry": lambda run: evaluation(run, n="x", unit=["nats"], better={"a": 1}),
    "values are a list": raw_evaluation('{"settings": [], "values": [1]}'),
    "evaluation is a list": raw_evaluation("[]"),
    "evaluation is a number": raw_evaluation("1"),
    "checkpoint is text": raw_evaluation('{"settings": {"checkpoint": "x"}, "values": {}}'),
    "metric of digits": raw_evaluation(f'{{"values": {{"importance_bound_{HUGE}": {{"value": 1}}}}}}'),
    "lone surrogates": raw_evaluation('{"skipped": "\\ud800", "values": {"\\ud800": {"value": 1, "unit": "\\ud800"}}}'),
    "many values": many_values,
    "many files": many_files,
    "temporary evaluation": lambda run: write_atomic(run.path / "evaluation" / ".tmp-4194999-elbo.json", "{"),
    "status is text": lambda run: write_json(run.status, {"status": "done", "epoch": ESCAPE}),
    "status of surrogates": lambda run: write_atomic(run.status, '{"status": "\\ud800", "reason": "\\ud800"}'),
    "reason of surrogates": lambda run: write_atomic(
        run.status, '{"status": "failed", "reason": "\\ud800\\u001b]0;x"}'
    ),
    "start is a number": lambda run: write_json(run.provenance, {"start": 7, "end": [], "restarts": "abc"}),
    "command is a tree": lambda run: write_json(run.provenance, {"start": "2", "command": {ESCAPE: [1]}}),
    "seed is a tree": configured(seed={"a": [ESCAPE]}),
    "seed is a surrogate": lambda run: write_atomic(
        run.config, yaml.safe_dump(config()).replace("seed: 0", 'seed: "\\ud800"')
    ),
    "model is a list": configured(model=[1, 2]),
    "model is nothing": configured(model=None),
    "targets are trees": configured(model={"_target_": {"a": 1}}, dataset={"_target_": [1]}, trainer={"_target_": 0}),
    "dataset is a number": configured(dataset=3),
    "odd keys": appended("2020-01-01: 3\n? [1, 2]\n: 3\n'': 4\n'.': 5\nmodel.latent_dim: 3\n"),
    "odd values": appended("x: !!binary aGVsbG8=\ny: !!set {a, b}\nz: .nan\nw: -.inf\nd: 2020-01-01\n"),
    "int of thousands of digits": appended(f"x: {HUGE}\ny: 0x{'f' * 9_000}\n"),
    "no date": appended("x: 2020-13-45\n"),
    "many keys": appended("extra:\n" + "".join(f"  k{i}: {i}\n" for i in range(9_000))),
    "too many keys": appended("extra:\n" + "".join(f"  k{i}: {i}\n" for i in range(100_000))),
    "deep": appended("x: " + "[" * 5_000),
    "alias": appended("a: &a [x]\nb: *a\n"),
    "object": appended("x: !!python/object/apply:os.system ['touch PWNED']\n"),
    "bomb of pixels": picture(png(100_000, 100_000)),
    "no pixels": picture(png(0, 0)),
    "cut picture": picture(png(50, 50, data=b"x")),
    "other chunk": picture(png(50, 50, kind=b"zzzz")),
    "program": picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "other format": picture(
        b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHIIHHII", 256, 4, 1, 5, 257, 5, 1, 2**32 - 16) + bytes(4)
    ),
    "pipe": lambda run: os.mkfifo(run.path / "pipe"),
    "link": lambda run: (run.path / "link").symlink_to("/etc"),
}
NAMES = [b"run\nx", b"run\xff\xfe", b"run\x1b]0;evil\x07", b"<img src=x onerror=alert(1)>'\"", b"=1+1", b"a|b`c"]


def written(folder):
    """Every format of the report, as `vaebench report` makes them."""
    records = [read_run(path) for path in find_runs([str(folder)])]
    problems = [record for record in records if record.problem is not None]
    sections = make_sections([record for record in records if record.problem is None])
    terminal = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    for section in sections:
        table.print_section(section, terminal)
    found = {
        "page": page.render(sections, problems),
        "json": json.dumps(files.as_json(sections, problems)),
        "csv": files.as_csv(sections),
        "markdown": files.as_markdown(sections, problems),
        "notes": "\n".join(note for record in records for note in [*record.notes, record.problem or ""]),
        "terminal": terminal.file.getvalue(),
    }
    for name, text in found.items():
        text.encode()  # no lone surrogates
        assert ESCAPE[:3] not in text, name
    return found


def check_good(folder, found):
    good = str(folder / "good")
    assert all(good in found[name] for name in ("page", "json", "csv"))
    assert "-90" in found["terminal"]
    assert "-90" in found["markdown"]
    assert len(found["page"]) < 3e6


@pytest.mark.parametrize("form", FORMS)
def test_one_bad_run_leaves_the_others_their_report(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "good", elbo=-90.0)
    bad = write_run(tmp_path / "runs" / "bad", seed=1, elbo=-91.0, pictures=True, model__latent_dim=3)
    FORMS[form](bad)
    found = written(tmp_path / "runs")
    check_good(tmp_path / "runs", found)
    assert not Path("PWNED").exists()
    assert "/bad" in found["page"]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_folder_stays_text(tmp_path, name):
    write_run(tmp_path / "runs" / "good", elbo=-90.0)
    write_run(tmp_path / "runs" / os.fsdecode(name), seed=1, elbo=-91.0)
    check_good(tmp_path / "runs", written(tmp_path / "runs"))


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1-1", "@SUM(1)", "\t=1+1", "|calc", " =1", "%0A=1"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_spreadsheet_computes_nothing_of_a_stranger(tmp_path, formula):
    for seed, value in enumerate((formula, "x")):
        run = write_run(tmp_path / str(seed), seed, elbo=-90.0, model__note=value)
        write_atomic(
            run.config, run.config.read_text().replace("latent_dim", json.dumps(formula) if seed else "latent_dim")
        )
        evaluation_of = run.path / "evaluation" / "elbo.json"
        write_atomic(evaluation_of, evaluation_of.read_text().replace("elbo_nats", json.dumps(formula)[1:-1]))
    written_rows = list(csv.reader(io.StringIO(written(tmp_path)["csv"])))
    assert any("x" in row for row in written_rows)
    for cell in (cell for row in written_rows for cell in row):
        is_number = re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)
        assert cell.lstrip()[:1] not in tuple("=+-@|%\t") or cell in ("-", "") or is_number, cell


def test_numbers_stay_numbers_in_a_spreadsheet(tmp_path):
    write_run(tmp_path / "a", elbo=-90.5)
    header, row = csv.reader(io.StringIO(written(tmp_path)["csv"]))
    assert row[header.index("elbo_nats")] == "-90.5"


@pytest.mark.parametrize("value", ["@somebody", "https://example.org/x", "www.example.org", "a`b@c|d"])
def test_markdown_makes_no_link_and_names_nobody(tmp_path, value):
    write_run(tmp_path / "a", elbo=-90.0, model__note=value)
    write_run(tmp_path / "b", elbo=-91.0, model__note="x")
    text = written(tmp_path)["markdown"]
    assert re.sub(r"`[^`]*`", "", text).count("@") == 0
    assert not re.search(r"://|www\.", re.sub(r"`[^`]*`", "", text))


def test_only_png_is_opened(tmp_path):
    from PIL import Image

    for name in ("GIF", "JPEG", "BMP", "EPS", "PNG"):
        path = tmp_path / f"{name}.png"
        Image.new("L", (3, 3)).convert("L").save(path, format=name)
        assert (data_uri(path) is not None) == (name == "PNG")
    (tmp_path / "link.png").symlink_to(tmp_path / "PNG.png")
    assert data_uri(tmp_path / "link.png") is None


def test_a_dead_run_is_shown_as_dead(tmp_path):
    run = write_run(tmp_path / "runs" / "a", elbo=-90.0, status="running")
    (run.path / ".lock").write_text("process 1 on elsewhere")
    found = written(tmp_path / "runs")
    assert 'class="pill died"' in found["page"]
    assert "died" in found["terminal"]
    assert '"status": "died"' in found["json"]
    assert "running" not in found["terminal"] + found["csv"]
