from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

from tests.report.runs import write_run
from vaebench.report import files
from vaebench.report.grouping import make_sections
from vaebench.report.reading import Record, read_run


def sections(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed, elbo=-90.0 - seed, mse=0.1) for seed in range(3)]
    runs += [write_run(tmp_path / "other", 0, elbo=-80.0, model__latent_dim=2), write_run(tmp_path / "none", 1)]
    return make_sections([read_run(run.path) for run in runs])


def test_csv_has_a_line_for_each_run(tmp_path):
    rows = list(csv.DictReader(io.StringIO(files.as_csv(sections(tmp_path)))))
    assert len(rows) == 5
    best = rows[0]
    assert best["model.latent_dim"] == "2"
    assert float(best["elbo_nats"]) == -80
    assert float(best["elbo_nats standard_error"]) == 0.5
    assert best["run"].endswith("other")
    assert {row["seed"] for row in rows[1:]} == {"0", "1", "2"}


def test_json_holds_it_all(tmp_path):
    found = json.loads(json.dumps(files.as_json(sections(tmp_path), [Record(tmp_path / "x", problem="damaged")])))
    first, second = found["datasets"][0]["configurations"]
    assert first["values"]["elbo_nats"]["mean"] == -80
    assert second["values"]["elbo_nats"] == {
        "mean": -91,
        "standard_deviation": 1,
        "num_seeds": 3,
        "unit": "nats",
        "better": "higher",
    }
    assert [run["is_counted"] for run in second["runs"]].count(True) == 3
    assert found["unreadable"][0]["reason"] == "damaged"


def test_markdown_takes_text_literally(tmp_path):
    run = write_run(tmp_path / "a", elbo=-90.0, model___target_="a|b`<script>")
    text = files.as_markdown(make_sections([read_run(run.path)]), [Record(tmp_path / "x|y", problem="<b>\nnew")])
    assert r"a\|b\`\<script\>" in text
    assert "\\<b\\> new" in text
    header, rule, line = [row for row in text.splitlines() if row.startswith("|")]
    assert header.count("|") == rule.count("|") == line.replace(r"\|", "").count("|")


def test_the_report_does_not_import_torch():
    code = "import sys, vaebench.commands.report as r; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
