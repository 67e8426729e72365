"""`RUN/index.html`: what the files of a run say, on a page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aevb.cli.run_page import write_page


class Reader(HTMLParser):
    """Pictures, addresses and headings of a page, and whether its elements close."""

    VOID = {"meta", "img", "br", "link", "path", "use", "rect", "circle"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: dict[str, str] = {}
        self.links: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.images[found["src"] or ""] = found.get("alt") or ""
        elif tag == "a":
            self.links.append(found["href"] or "")
        elif tag == "h2":
            self.headings.append(found.get("id") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def page_of(run: Path) -> tuple[str, Reader]:
    text = (run / "index.html").read_text(encoding="utf-8")
    return text, Reader(text)


def test_training_leaves_a_page_with_pictures_curve_settings_and_verdict(finished: Path) -> None:
    text, page = page_of(finished)
    assert page.open == []
    assert page.headings == ["evidence", "training", "pictures", "settings"]
    assert {"reconstructions.png", "samples.png", "manifold.png"} <= page.images.keys()
    assert all(page.images.values())  # each says what it shows
    assert "<svg" in text
    assert 'class="headline fair"' in text or 'class="headline bad"' in text
    assert re.search("Next: <code>aevb \\w+ .*?finished", text)
    assert "batch_size" in text


def test_page_needs_nothing_from_elsewhere_and_fits_phones_and_the_dark(finished: Path) -> None:
    text, page = page_of(finished)
    assert re.search(r"""(src|href|url\()=?["']?(https?:)?//""", text) is None
    assert all((finished / name).exists() for name in [*page.images, *page.links])
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_every_later_command_adds_its_part(run: Path, aevb: Any) -> None:
    brief = ["--limit", 5, "--num_samples", 30]
    commands: dict[str, list[Any]] = {
        "sample": ["--num", 4],
        "embed": ["--limit", 30],
        "impute": ["--datapoints", 4, "--num_steps", 4, "--num_samples", 0],
        "posterior": ["--limit", 2, "--num_samples", 200, "--num_draws", 10],
        "evaluate": [*brief, "--curve", "true"],
    }
    parts = {"sample": "samples", "embed": "embeddings", "impute": "imputations"}
    parts |= {"posterior": "posteriors"}
    for command, flags in commands.items():
        result = aevb(command, run, *flags)
        assert result.code == 0, result.err
        assert "index.html" in result.out
        if command in parts:
            assert parts[command] in page_of(run)[1].headings
    page = page_of(run)[1]
    assert page.open == []
    assert any(name.endswith("-curve.png") for name in page.images)
    assert all((run / name).exists() for name in [*page.images, *page.links])


def test_trial_is_told_with_its_colour(run: Path) -> None:
    figures = {
        "verdict": ["A sentence of the trial & more."], "num_datapoints": 10, "num_judged": 10,
        "num_differing": 0, "num_corrected": 10, "num_khat_undefined": 0,
    }  # fmt: skip
    (run / "report.json").write_text(json.dumps(figures))
    (run / "report.html").write_text("<p>")
    write_page(run)
    text, page = page_of(run)
    assert "trial" in page.headings
    assert "report.html" in page.links
    assert "A sentence of the trial &amp; more." in text
    assert 'class="headline good"' in text


@pytest.mark.parametrize("content", ["", "[]", "{", '{"verdict": 3}'])
def test_broken_files_do_not_break_the_page(content: str, run: Path) -> None:
    for name in ("report.json", "record.json"):
        (run / name).write_text(content)
    (run / "report.html").write_text("<p>")
    (run / "metrics.csv").unlink()
    write_page(run)
    assert page_of(run)[1].open == []


def test_words_of_a_stranger_are_text(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    record["data"]["name"] = "<script>alert(1)</script>"
    (run / "record.json").write_text(json.dumps(record))
    write_page(run)
    assert "<script" not in (run / "index.html").read_text(encoding="utf-8")


def test_folder_that_cannot_be_written_to_keeps_its_page(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "index.html").read_text(encoding="utf-8")
    (run / "record.json").unlink()
    monkeypatch.setattr("os.access", lambda *_: False)
    write_page(run)
    assert (run / "index.html").read_text(encoding="utf-8") == before
