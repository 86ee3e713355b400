"""`vaebench list`: every option with a line about it, read as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vaebench.commands.list import Entry, entries
from vaebench.factory.configurations import conf_dir, options
from vaebench.factory.groups import TABLE

GROUPS = {group.title: group.name for group in TABLE}


def write(folder: Path, name: str, text: str) -> None:
    file = folder / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_every_option_is_listed(command):
    for title, group in GROUPS.items():
        lines = command("list", title).out.splitlines()
        assert [line.partition("\t")[0] for line in lines] == [
            f"{group}={name}" for name in options([conf_dir()]).get(group, [])
        ]


def test_no_word_lists_all_groups(command):
    out = command("list").out
    assert {"model=vae", "dataset=digits"} <= {line.partition("\t")[0] for line in out.splitlines()}
    assert out == "".join(command("list", title).out for title in GROUPS)


@pytest.mark.parametrize("group", GROUPS.values())
def test_every_option_says_what_it_is(group):
    silent = [entry.name for entry in entries(group, [conf_dir()]) if not entry.line]
    assert silent == []


@pytest.mark.parametrize("group", ["model", "sampler"])
def test_every_method_names_its_paper(group):
    without = [entry.name for entry in entries(group, [conf_dir()]) if "http" not in entry.paper]
    assert without == []


def test_an_empty_group_says_so(command, monkeypatch):
    monkeypatch.setattr("vaebench.commands.list.options", lambda places: {})
    answer = command("list", "metrics")
    assert (answer.code, answer.out, answer.err) == (0, "", "vaebench list: there are no metrics yet\n")


def test_the_nearest_word(command):
    answer = command("list", "modl")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "vaebench list: there is nothing called 'modl'; did you mean 'model'?\n"


@pytest.mark.parametrize(("title", "group"), GROUPS.items())
def test_the_name_of_the_group_does_as_well(command, title, group):
    expected = command("list", title)
    for word in (group, group.rpartition("/")[2]):
        assert command("list", word) == expected
    assert command("list", title, group) == expected


def test_help(command):
    answer = command("list", "--help")
    assert answer.code == 0
    assert "likelihoods" in answer.out


def test_options_of_a_user(command, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.py").write_text(
        'import nothing\n\n\nclass Mine:\n    """A model of mine.\n\n    References:\n        Title (Me, 2030),\n'
        '        https://example.org/1;\n        Another (You, 2031).\n    """\n'
    )
    (tmp_path / "mine" / "broken.py").write_text("class\n")
    write(tmp_path / "conf", "model/mine", "_target_: mine.model.Mine\n")
    write(tmp_path / "conf", "model/variant", "# A variant (He et al., 2020). More.\ndefaults: [mine, _self_]\n")
    write(tmp_path / "conf", "model/broken", "_target_: mine.broken.Mine\n")
    write(tmp_path / "conf", "model/nested", "# @package _global_\n#\n# Two\n# lines\n#\n# more\nmodel:\n  a: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VAEBENCH_CONF", str(tmp_path / "conf"))
    found = {entry.name: entry for entry in entries("model", [tmp_path / "conf"])}
    paper = "Title (Me, 2030), https://example.org/1"
    assert found["mine"] == Entry("mine", "A model of mine.", paper)
    assert found["variant"] == Entry("variant", "A variant (He et al., 2020).", paper)
    assert found["broken"] == Entry("broken", "", "")
    assert found["nested"] == Entry("nested", "Two lines", "")
    assert "model=mine\tA model of mine.\t" in command("list", "models").out


def test_a_table_on_a_terminal(tmp_path):
    script = "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'vaebench', 'list', 'likelihoods']))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert "likelihoods" in done.stdout
    assert "[0, 1]" in done.stdout  # not taken for rich's markup
