from __future__ import annotations

from html.parser import HTMLParser

import pytest

from tests.report.runs import write_run
from vaebench.report import page
from vaebench.report.grouping import make_sections
from vaebench.report.reading import Record, read_run

EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(1)>'\"{{ 1234567 * 7654321 }}$x^2$"


class Page(HTMLParser):
    """Collects tags and texts, and insists that every element is closed in order."""

    VOID = frozenset({"meta", "img", "br", "line", "ellipse", "path", "use", "rect", "link", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def render(*runs, problems=()):
    return page.render(make_sections([read_run(run.path) for run in runs]), problems)


def test_one_page_that_needs_nothing_beside_itself(tmp_path):
    runs = [
        write_run(tmp_path / str(seed), seed, elbo=-90.0 - seed, mse=0.5, pictures=True, model__latent_dim=2 + seed % 2)
        for seed in range(4)
    ]
    text = render(*runs)
    found = Page(text)
    names = {tag for tag, _ in found.tags}
    assert "svg" in names
    assert names.isdisjoint({"script", "link", "iframe", "object"})
    sources = [attributes["src"] for tag, attributes in found.tags if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    linked = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("href", "src")]
    assert not [value for value in linked if value and not value.startswith(("data:", "#"))]
    assert '-91.0 <span class="spread">± 1.4</span>' in text
    assert "2 configurations" in text


def test_curves_beyond_the_palette_share_one_word(tmp_path):
    runs = [write_run(tmp_path / str(dim), model__latent_dim=dim) for dim in range(1, 13)]
    assert render(*runs).count("others</span>") == 1
    assert "others</span>" not in render(*runs[:8])


def test_a_strangers_text_stays_text(tmp_path):
    run = write_run(
        tmp_path / "a",
        elbo=-90.0,
        model___target_=EVIL,
        model__latent_dim=EVIL,
        dataset___target_=EVIL,
        **{f"trainer__{EVIL}": 1},
    )
    other = write_run(tmp_path / "b", elbo=-91.0, dataset___target_=EVIL, **{f"trainer__{EVIL}": 2})
    run.set_status("failed", reason=EVIL)
    run.evaluation("x<b>").write_text(f'{{"skipped": {EVIL!r}}}'.replace("'", '"'))
    text = render(run, other, problems=[Record(tmp_path / "<i>", problem=EVIL)])
    found = Page(text)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert str(1234567 * 7654321) not in text
    assert not [a for _, attributes in found.tags for a in attributes if a.startswith("on")]
    assert "&lt;script&gt;" in text


def test_a_class_name_cannot_leave_its_attribute(tmp_path):
    run = write_run(tmp_path / "a", elbo=-90.0)
    run.status.write_text('{"status": "x\\" onmouseover=\\"alert(1)", "epoch": 1, "step": 30}')
    found = Page(render(run))
    assert not [a for _, attributes in found.tags for a in attributes if a.startswith("on")]


def test_damaged_pictures_are_left_out(tmp_path):
    run = write_run(tmp_path / "a", elbo=-90.0, pictures=True)
    (run.images / "samples.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    assert "<img" not in render(run)


@pytest.mark.parametrize("losses", [(), (5.0,), (5.0, 5.0), (-3.0, -4.0)])
def test_short_histories(tmp_path, losses):
    run = write_run(tmp_path / "a", losses=losses)
    assert ("<h3>Learning curves" in render(run)) == bool(losses)


def test_nothing_but_damaged_runs(tmp_path):
    text = page.render([], [Record(tmp_path / "a", problem="status.json is missing")])
    assert "status.json is missing" in text
    Page(text)
