from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.report.runs import write_run
from vaebench.report.grouping import make_sections
from vaebench.report.reading import read_run
from vaebench.report.table import print_section

KEYS = [f"model__very_long_setting_{letter}" for letter in "abcdefgh"]


@pytest.fixture
def shown(tmp_path):
    """Print the table of runs with these settings at a width."""

    def show(width, *settings, **values):
        records = [read_run(write_run(tmp_path / str(i), **values, **own).path) for i, own in enumerate(settings)]
        file = io.StringIO()
        for section in make_sections(records):
            print_section(section, Console(file=file, width=width))
        return file.getvalue()

    return show


def test_one_number_is_enough(shown):
    assert "100" in shown(80, {})


def test_many_settings_share_a_column_and_none_is_cut(shown):
    usual = dict.fromkeys(KEYS, 1)
    text = shown(100, *({**usual, key: 23} for key in KEYS), usual, elbo=-90.0, mse=1.0)
    lines = "".join(text.split())
    for key in KEYS:
        assert f"{key.partition('__')[2]}=23" in lines
    assert "=1" not in lines
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_settings_have_their_own_columns_where_there_is_room(shown):
    text = shown(100, {"model__latent_dim": 2}, {"model__latent_dim": 3}, elbo=-90.0)
    assert "latent_dim" in text
    assert "unlike most" not in text
