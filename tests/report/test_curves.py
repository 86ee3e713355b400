from __future__ import annotations

import xml.etree.ElementTree as ET

from vaebench.report.curves import learning_curves


def test_colors_and_ink_follow_the_page():
    svg = learning_curves([[[(1, 3.0), (2, 2.0)]] for _ in range(10)], "loss")
    for number in range(9):
        assert f"var(--series-{number})" in svg
    assert "currentColor" in svg
    assert "#" not in svg.replace('"#', "").replace("(#", "")  # no fixed color; references to clip paths only
    ET.fromstring(svg)


def test_the_first_epochs_do_not_flatten_the_rest():
    falling = [(float(epoch), 1e6 if epoch < 2 else 100.0 - epoch) for epoch in range(20)]
    svg = learning_curves([[falling]], "loss")
    labels = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert max(float(text.replace("−", "-")) for text in labels if text and text[-1].isdigit()) < 110


def test_two_figures_share_no_names():
    import re

    first, second = (learning_curves([[[(1, 3.0), (2, float(k))]]], "loss") for k in range(2))
    names = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (first, second)]
    assert names[0]
    assert names[0].isdisjoint(names[1])


def test_nothing_to_draw():
    assert learning_curves([[[]], []], "loss") == ""
