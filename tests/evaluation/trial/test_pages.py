"""Pages: pictures in the page's colours, words explained, nothing from elsewhere."""

import re
from xml.etree import ElementTree

import pytest

from aevb.evaluation.plots import new_axes
from aevb.evaluation.trial.pages import WORDS, explained, glossary, svg


def picture(alt: str) -> str:
    figure, axes = new_axes(3, 2)
    axes.plot([0, 1], [1, 2], label="a line")
    axes.scatter([0.5], [1.5])
    axes.set_xlabel("z[0]")
    axes.legend()
    return str(svg(figure, alt))


def test_lines_and_words_of_a_picture_take_the_colour_of_the_page() -> None:
    text = picture("A line")
    ElementTree.fromstring(text)  # it is well-formed
    assert "currentColor" in text
    assert "#000000" not in text
    assert "#ffffff" not in text.lower()
    assert ">z[0]</text>" in text  # words stay words, to be read aloud


def test_a_picture_fits_its_place_and_says_what_it_shows() -> None:
    head = picture('Bars & "lines"').split(">", 1)[0]
    assert 'role="img"' in head
    assert "aria-label=" in head
    assert "viewBox=" in head
    assert "width=" not in head


def test_names_within_pictures_do_not_collide() -> None:
    pages = [picture("one"), picture("two")]
    names = [re.findall(r' id="([^"]+)"', text) for text in pages]
    assert all(names)
    assert not set(names[0]) & set(names[1])
    for text, own in zip(pages, names, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text)) <= set(own)


def test_the_same_picture_is_the_same_text() -> None:
    assert picture("one") == picture("one")


@pytest.mark.parametrize("word", list(WORDS))
def test_every_word_is_explained_once(word: str) -> None:
    text = explained(f"<b> {word}, and {word}")
    assert text.count("<abbr title=") == 1
    assert text.startswith("&lt;b&gt; <abbr")
    assert word in glossary(f"the {word}.")


def test_words_within_words_are_left_alone() -> None:
    assert "<abbr" not in explained("reactive, misguided, familywise")
