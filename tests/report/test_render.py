import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made_by_hand import AT_SECONDS
from markdown_it import MarkdownIt

from atlas.errors import UsageError
from atlas.report.contents import document
from atlas.report.document import Bullets, Code, Details, Document, Paragraph, Section, table
from atlas.report.render import check_output, fenced, markdown, rendered, visible, write

HOSTILE = (
    "<script>alert(1)</script></pre></textarea></title></details><img src=x onerror=alert(2)>"
    "{{7*7}} {% raw %} ${7*7} \x1b[31mred\x1b[0m \u202eesrever\u202c \x00\x07 ]]> --> \ud800 "
    "[link](javascript:alert(3)) ![image](http://example.org/x.png) | pipe | `code` **bold** $x$\n"
    "```\n~~~~\n````\n</details>\n\n# heading\n\n<script>alert(4)</script>\n| a |\n"
)
HTML = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "section",
    "h1",
    "h2",
    "p",
    "ul",
    "li",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "figure",
    "pre",
    "details",
    "summary",
}
SVG = {"svg", "g", "path", "defs", "clippath", "pattern", "rect", "use", "text"}


class Page(HTMLParser):
    """Elements and attributes as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def hostile_document():
    blocks = (
        Paragraph(HOSTILE),
        Paragraph(HOSTILE, "verdict"),
        Paragraph(HOSTILE, "warning"),
        Bullets((HOSTILE,)),
        table((HOSTILE, "n"), [[HOSTILE, "1"]]),
        Code(HOSTILE),
        Details(HOSTILE, (Code(HOSTILE), Paragraph(HOSTILE))),
    )
    return Document(HOSTILE, HOSTILE, (Section(HOSTILE, blocks),))


def test_nothing_that_a_model_wrote_becomes_html():
    page = Page(rendered(hostile_document(), ".html"))
    assert page.tags <= HTML | SVG
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} and not names & {"src", "href", "srcdoc", "action"}
    assert "<script>alert(1)</script></pre>" in page.text and "{{7*7}}" in page.text
    assert "49" not in page.text


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_what_is_not_printed_is_written_out(suffix):
    text = rendered(hostile_document(), suffix)
    assert not [character for character in text if not character.isprintable() and character not in "\n\t"]
    assert visible("\x1b[31m\u202e\x00\ud800\U000e0001") == "\\x1b[31m\\u202e\\x00\\ud800\\U000e0001"


def test_nothing_that_a_model_wrote_becomes_markdown():
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(rendered(hostile_document(), ".md"))
    inner = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inner]}
    assert not kinds & {"link_open", "image", "em_open", "s_open", "code_inline", "html_inline"}
    html = [token.content for token in tokens if token.type == "html_block"]
    assert all(re.fullmatch(r"(<details>\n<summary>[^<>]*</summary>|</details>)\n?", block) for block in html)
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2"]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences == [visible(HOSTILE).rstrip() + "\n"] * 2
    rows = [token for token in tokens if token.type == "tr_open"]
    cells = [token for token in tokens if token.type in ("td_open", "th_open")]
    assert (len(rows), len(cells)) == (2, 4)


def test_a_fence_is_longer_than_any_in_the_text():
    assert fenced("a ````` b").startswith("``````text\n")
    assert fenced("plain").startswith("```text\n")


def test_words_stay_readable_in_markdown():
    assert markdown("max_steps of gkd") == "max_steps of gkd"
    assert markdown("_em_ a|b # x") == "\\_em\\_ a\\|b # x"
    assert [markdown(text) for text in ("# x", "- x", "---", "+0.1")] == ["\\# x", "\\- x", "\\---", "+0.1"]
    assert markdown("> 5.0 GPU-h\nnext") == "&gt; 5.0 GPU-h next"


def test_a_token_in_a_completion_is_taken_out():
    assert "hf_" not in visible("my key is hf_abcdefghijklmnopqrstuvwx")


@pytest.mark.parametrize("name", ["rich", "poor"])
def test_a_report_needs_no_network_and_no_script(name, request, samples):
    text = rendered(document(request.getfixturevalue(name), samples, AT_SECONDS), ".html")
    page = Page(text)
    assert page.tags <= HTML | SVG
    references = [value for name, value in page.attributes if name.split(":")[-1] in ("href", "src")]
    assert all(value.startswith("#") for value in references)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", text))
    assert "@import" not in text
    assert any(name == "content" and value.startswith("default-src 'none';") for name, value in page.attributes)


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_the_same_record_gives_the_same_bytes(rich, samples, suffix):
    reports = [rendered(document(rich, samples, AT_SECONDS), suffix) for _ in range(2)]
    assert reports[0] == reports[1]


def test_both_formats_say_the_same(rich, samples):
    report = document(rich, samples, AT_SECONDS)
    page = Page(rendered(report, ".html")).text
    tokens = MarkdownIt("commonmark").enable("table").parse(rendered(report, ".md"))
    shown = "".join(child.content for token in tokens for child in token.children or ())
    for section in report.sections:
        assert section.title in page and section.title in shown
    for sentence in rich.verdicts[0].sentences:
        assert sentence in page and sentence in shown
    tables = [token for token in tokens if token.type == "table_open"]
    assert len(tables) == rendered(report, ".html").count("<table>")


def test_the_markdown_chart_is_an_image_in_the_file(rich, samples):
    text = rendered(document(rich, samples, AT_SECONDS), ".md")
    assert text.count("](data:image/svg+xml;base64,") == 2


def test_a_forced_report_warns_in_both_formats(rich, samples):
    report = document(replace(rich, mismatches=("the grader differs",)), samples, AT_SECONDS)
    assert '<p class="warning">These runs must not be compared.' in rendered(report, ".html")
    assert "> **These runs must not be compared." in rendered(report, ".md")
    assert "> - the grader differs" in rendered(report, ".md")


@pytest.mark.parametrize("name", ["report.pdf", "report", "-", "report.html.gz"])
def test_other_suffixes_are_refused_with_both_that_are_known(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.html or \.md"):
        check_output(tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        check_output(tmp_path / "nowhere" / "report.html")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path / "report.html")


def test_a_report_replaces_the_old_one_whole(tmp_path):
    output = tmp_path / "report.HTM"
    output.write_text("old")
    write(Document("new", "", ()), output)
    assert "<h1>new</h1>" in output.read_text()
    assert list(tmp_path.iterdir()) == [output]


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    output = tmp_path / "report.md"
    output.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UsageError, match="No space left"):
        write(Document("new", "", ()), output)
    assert output.read_text() == "old"
