"""Two strips of tokens as HTML: nothing that a model wrote is markup, and everything can be seen."""

import math
import re
from html.parser import HTMLParser

import pytest
from hostile import HOSTILE

from atlas.store.aligned import AlignedCompletion
from dashboard.charts import strips

TAGS = {"style", "div", "span", "b", "i"}


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = set(), set(), "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self._open[-1:] == ["style"] else data


def drawn(student, teacher=(("b", 0),), divergence=(0.5,)):
    return strips.strips(AlignedCompletion(1, "p", tuple(student), tuple(teacher), tuple(divergence)))


@pytest.mark.parametrize(
    "text", [*HOSTILE, '" onmouseover="alert(1)', "' style='x", "<!--", "&lt;script&gt;", "<style>*{}"]
)
@pytest.mark.parametrize("chunk", [0, -1])
def test_a_token_is_never_markup(text, chunk):
    for page in (drawn([(text, chunk)]), drawn([("a", 0)], [(text, chunk)])):
        reader = Reader(page)
        assert reader.tags <= TAGS and reader.attributes <= {"class", "title"}
        assert text.replace(" ", "␣") in reader.text


def test_a_title_is_never_markup():
    completion = AlignedCompletion(1, "p", (("a", 0),), (("a", 0),), (0.1,))
    page = strips.document(HOSTILE[0], [(HOSTILE[3], completion)])
    assert "<img" not in page and "<script" not in page


@pytest.mark.parametrize(
    "text, shown",
    [
        (" a\n", "<i>␣</i>a<i>↵</i>"),
        ("\t\r", "<i>⇥</i><i>␍</i>"),
        ("a\u200bb\u202e", "a<i>U+200B</i>b<i>U+202E</i>"),
        ("\x00", "<i>U+0000</i>"),
        ("\u0301", "<i>◌</i>\u0301"),
        ("<&>", "&lt;&amp;&gt;"),
        ("", ""),
    ],
)
def test_white_space_and_what_has_no_shape_can_be_seen(text, shown):
    assert strips.token(text) == shown


@pytest.mark.parametrize(
    "divergence, kind",
    [
        (-1e-9, "l0"),
        (0.0099, "l0"),
        (0.01, "l1"),
        (0.2, "l3"),
        (2.9, "l5"),
        (99.0, "l6"),
        (math.nan, "odd"),
        (math.inf, "odd"),
    ],
)
def test_the_level_of_a_chunk_says_its_divergence(divergence, kind):
    page = drawn([("a", 0)], divergence=[divergence])
    assert f'<span class="{kind}" title="chunk 0: {strips.amount(divergence)}' in page
    assert ("NaN</span>" in page) == math.isnan(divergence)


def test_a_chunk_is_one_cell_with_the_student_over_the_teacher():
    page = drawn([("48", 0), ("!", 1)], [("4", 0), ("8", 0), ("!", 1)], [0.5, 0.0])
    cells = re.findall(r'<span class="l\d".*?</span></span></span>', page, re.DOTALL)
    assert len(cells) == 2 and cells[0].index(">48<") < cells[0].index(">4<") < cells[0].index(">8<")
    assert "chunk 0: 0.5 nats\nstudent: &#x27;48&#x27;\nteacher: &#x27;4&#x27; | &#x27;8&#x27;" in cells[0]


def test_what_is_in_no_chunk_is_hatched_and_a_newline_breaks_the_strip():
    page = drawn([("x", -1), ("a\n", 0)])
    assert '<span class="masked" title="in no chunk: not learnt from' in page
    assert page.count("<b></b>") == 1


def test_long_completions_chunks_and_tokens_are_bounded():
    many = [("a", n) for n in range(5000)]
    assert len(drawn(many, many, [0.1] * 5000)) < 400_000 and "4,000 more chunks" in drawn(many, many, [0.1] * 5000)
    assert "800 more" in drawn([("a", 0)] * 1000)
    assert len(drawn([("x" * 100_000, 0)])) < 8_000


def test_without_tokens_there_is_nothing_to_draw():
    assert "student" in strips.strips(AlignedCompletion(1, "", (), (), ()))


def test_every_level_has_its_place_in_the_key():
    page = strips.key()
    assert all(f'class="l{level}"' in page for level in range(len(strips.LEVELS) + 1)) and "not learnt from" in page
