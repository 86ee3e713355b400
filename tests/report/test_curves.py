from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from vaebench.report.curves import learning_curves


def test_colors_and_ink_follow_the_page():
    svg = learning_curves({"loss": [[[(1, 3.0), (2, 2.0)]] for _ in range(10)]})
    for number in range(9):
        assert f"var(--series-{number})" in svg
    assert "currentColor" in svg
    assert "#" not in svg.replace('"#', "").replace("(#", "")  # no fixed color; references to clip paths only
    ET.fromstring(svg)


def test_the_first_epochs_do_not_flatten_the_rest():
    falling = [(float(epoch), 1e6 if epoch < 2 else 100.0 - epoch) for epoch in range(20)]
    svg = learning_curves({"loss": [[falling]]})
    labels = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert max(float(text.replace("−", "-")) for text in labels if text and text[-1].isdigit()) < 110


def test_two_figures_share_no_names():
    import re

    first, second = (learning_curves({"loss": [[[(1, 3.0), (2, float(k))]]]}) for k in range(2))
    names = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (first, second)]
    assert names[0]
    assert names[0].isdisjoint(names[1])


def test_nothing_to_draw():
    assert learning_curves({"train": [[[]], []], "validation": []}) == ""


def test_training_and_validation_have_scales_of_their_own():
    line = [(float(epoch), 100.0 - epoch) for epoch in range(1, 9)]
    svg = learning_curves(
        {"train loss": [[line]], "validation loss": [[[(x, 1e4 * y) for x, y in line]]], "none": [[[]]]}
    )
    texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if "loss" in text] == ["train loss", "validation loss"]
    assert texts.count("epoch") == 2
    numbers = [float(text.replace("−", "-")) for text in texts if text[-1].isdigit()]
    assert any(90 < number < 101 for number in numbers)
    assert any(9e5 < number < 1.1e6 for number in numbers)


@pytest.mark.parametrize(
    "values", [(5e-324, 0.0), (1e99, -1e99), (1.0, 1.0 + 2**-52), (0.0, 0.0), (1e-200, 2e-200), (-1e99, -1e99)]
)
def test_numbers_of_any_size_are_drawn(values):
    line = [(float(epoch), value) for epoch, value in enumerate(values)]
    assert learning_curves({"loss": [[line]]}).startswith("<svg")
    assert learning_curves({"loss": [[[(float(2**53 - 1), values[0]), (0.0, values[1])]]]}).startswith("<svg")
