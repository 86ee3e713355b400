"""Tables keep numbers and names whole, however narrow the terminal is."""

from __future__ import annotations

import io

from rich.console import Console

from vaebench.commands import console as module
from vaebench.commands.console import show_table
from vaebench.commands.summary import settings
from vaebench.trainers.callbacks.progress import columns


def test_numbers_and_names_are_not_broken(monkeypatch):
    out = io.StringIO()
    terminal = Console(file=out, width=60, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "Console", lambda stderr: terminal)
    rows = [("a_long_name_of_a_value", "-1234.5678", "-1234.5678", "words " * 20), ("b", "1.0", "2.0", "more")]
    path = "outputs/2026-01-01/" + 60 * "x"  # to be copied
    show_table(path, ("value", "train", "validation", "what it is"), rows)
    assert out.getvalue().count("a_long_name_of_a_value") == 1
    assert out.getvalue().count("-1234.5678") == 2
    title, *lines = out.getvalue().splitlines()
    assert title == path
    assert max(map(len, lines)) <= 60


def test_each_part_has_a_row():
    tree = {
        "model": {
            "_target_": "vaebench.models.vae.VAE",
            "latent_dim": 10,
            "network": {"_target_": "vaebench.networks.mlp.MLP", "hidden_dims": [512], "decoder_hidden_dims": None},
        },
        "callback": {"ema": {"_target_": "a.b.EMA", "decay": 0.9}},
        "seed": 0,
        "experiment": None,
    }
    assert settings(tree) == [
        ("model", "VAE", "latent_dim=10"),
        ("model.network", "MLP", "hidden_dims=[512]"),
        ("callback.ema", "EMA", "decay=0.9"),
        ("seed", "0", ""),
    ]


def test_a_bar_keeps_its_width_and_labels_its_times():
    from rich.progress import Progress, TextColumn

    console = Console(width=80, file=io.StringIO(), force_terminal=True, no_color=True)
    with Progress(TextColumn("epoch 100"), *columns(80, "step"), console=console) as bar:
        bar.add_task("", total=60_000, completed=30_000)
        (line,) = console.render_lines(bar.get_renderable(), pad=False)
    text = "".join(segment.text for segment in line)
    assert "30000/60000 steps," in text
    assert "elapsed," in text
    assert text.rstrip().endswith("left")
    assert text.count("━") >= 7
    assert len(text) <= 80
