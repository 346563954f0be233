"""The report: one file without network, safe against hostile names, whole on a telephone and on paper."""

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mskscreen.evaluation.assess import assess
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.labels import Labels, labels_from_paths
from mskscreen.evaluation.report import Pictures, render, write_report
from mskscreen.evaluation.report.checklists import CLAIM, STARD
from mskscreen.evaluation.report.markup import tag
from mskscreen.evaluation.table import Table
from mskscreen.predictions import Predictions

from .conftest import CONTRACT, make_predictions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x07'\"&"


PROBE = """
<iframe src="report.html" style="width:375px;height:800px;border:0"></iframe><p id="out"></p>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const beyond = [...page.querySelectorAll("td,p,figure,h2,dd,.tile")]
    .filter(node => node.getBoundingClientRect().right > 376 && !node.closest(".wide"));
  const width = page.documentElement.scrollWidth, h2 = page.querySelectorAll("h2").length;
  document.getElementById("out").textContent = `width=${width} outside=${beyond.length} h2=${h2}`;
}
</script>"""


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises where elements do not nest."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, *pair) for pair in attributes]
        if name != "meta":
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, *pair) for pair in attributes]

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def assessed(predictions, labels=None, **settings):
    table = Table.of(predictions, settings.pop("name", "predictions"))
    return assess(join(table, labels or labels_from_paths(table)), resamples=40, **settings)


@pytest.fixture(scope="module")
def full():
    development = Table.of(make_predictions(150, seed=4, first_patient=9000, scale=2), "dev")
    return assessed(
        make_predictions(150, errors=2, scale=2),
        development=join(development, labels_from_paths(development)),
        contract=CONTRACT,
        prevalence=0.1,
    )


def test_every_section_is_there_once_and_linked(full):
    page = Page(render(full))
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = [value[1:] for element, name, value in page.attributes if element == "a" and name == "href"]
    assert ids == links
    assert len(set(ids)) == len(ids) == 15
    assert page.tags.count("svg") > 6


def test_the_page_asks_for_nothing_from_outside(full):
    html = render(full)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for element, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert value.startswith(("#", "data:")), (element, name, value)
    # The namespace of SVG is a name, not an address that is asked.
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.]+", html.split("</style>")[1])
    assert "@import" not in html
    assert "url(" not in html
    assert any(value and value.startswith("default-src 'none'") for _, _, value in page.attributes)


def test_hostile_names_stay_text():
    predictions = make_predictions(60)
    rows = [
        dataclasses.replace(row, file=f"{HOSTILE}{i}.png", study=f"{HOSTILE}{row.study}/")
        for i, row in enumerate(predictions)
    ]
    truth = {row.study: "positive" in original.file for row, original in zip(rows, predictions, strict=True)}
    labels = Labels(
        image=[None] * len(truth),
        study=list(truth),
        patient=[HOSTILE + str(i) for i in range(len(truth))],
        label=np.array([not value for value in truth.values()], float),
        joint=np.full(len(truth), -1),
        columns={"vendor": [HOSTILE] * len(truth)},
        name=HOSTILE,
    )
    hostile = Predictions(tuple(rows), {"name": HOSTILE, "intended_use": HOSTILE}, 0.5)
    html = render(assessed(hostile, labels, by=["vendor"], name=HOSTILE))
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "alert(1)" in "".join(page.text)
    assert "\u202e" not in html
    assert "\x07" not in html


def test_attributes_are_escaped_too():
    assert tag("a", title='"><script>') == '<a title="&quot;&gt;&lt;script&gt;"></a>'


def test_figures_of_the_page_are_those_of_the_assessment(full):
    text = " ".join(Page(render(full)).text)
    auroc = full.study.overall.abnormality["auroc"]
    assert f"{auroc.value:.3f}" in text
    assert f"{auroc.interval.low:.3f} to {auroc.interval.high:.3f}" in text
    assert "Disjoint by patient" in text
    assert "research use, not for diagnosis" in text
    assert full.provenance["code_sha256"] in text


def test_patients_in_both_are_said_loudly(full):
    shared = dataclasses.replace(full, development=dataclasses.replace(full.development, shared_patients=3))
    assert "NOT disjoint by patient" in render(shared)


def test_checklists_leave_to_the_author_what_the_software_cannot_know(full):
    assert len(CLAIM) == 44
    assert [item.number for item in CLAIM] == [str(k) for k in range(1, 45)]
    assert {item.number.rstrip("ab") for item in STARD} == {*map(str, range(1, 31)), "AI"}
    html = render(full)
    assert html.count("to be written by the author") > 20
    claim = html.split('id="claim"')[1]
    assert re.search(r"Funding.*?</td><td[^>]*><span class=\"author\">", claim)
    assert "2 images without a score or a label are left out" in claim


def test_calls_alone_make_a_page_without_curves():
    predictions = make_predictions(60)
    table = Table.of(predictions)
    hard = dataclasses.replace(
        table,
        p_abnormal=(table.p_abnormal > 0.5).astype(float),
        p_joint=np.full((len(table), 7), np.nan),
        hard=True,
    )
    html = render(assess(join(hard, labels_from_paths(hard)), resamples=20))
    Page(html)
    assert "<svg" not in html.split('id="curves"')[1].split("</section>")[0]


def test_one_study_makes_a_page():
    html = render(assessed(make_predictions(1)))
    Page(html)
    assert "too few" in html


@pytest.fixture
def tree(tmp_path):
    """Images of the predictions under a folder, one of them broken, and an image outside that a row points to."""
    predictions = make_predictions(30)
    rows = []
    for i, row in enumerate(predictions):
        wrong = dataclasses.replace(row, p_abnormal=1 - row.p_abnormal)
        rows.append(wrong)
        path = tmp_path / "root" / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if i == 0:
            path.write_bytes(b"not an image")
        else:
            Image.fromarray(np.full((300, 200), 40 + i, np.uint8)).save(path)
    return tmp_path / "root", dataclasses.replace(predictions, images=tuple(rows))


def test_pictures_come_only_where_asked_and_small(tree):
    root, predictions = tree
    a = assessed(predictions)
    assert "<img" not in render(a)
    html = render(a, Pictures(images=root))
    page = Page(html)
    sources = [value for element, name, value in page.attributes if element == "img" and name == "src"]
    assert len(sources) >= 10
    assert all(value.startswith("data:image/jpeg;base64,") and len(value) < 40_000 for value in sources)
    assert "it is for local use only" in html


def test_pictures_from_elsewhere_are_not_taken(tree, tmp_path):
    root, predictions = tree
    secret = tmp_path / "secret" / "image1.png"
    secret.parent.mkdir()
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(secret)
    (root / "link.png").symlink_to(secret)
    names = [str(secret), "../secret/image1.png", "link.png"]
    rows = [
        dataclasses.replace(row, file=name, study=f"s{i}")
        for i, (row, name) in enumerate(zip(predictions, names, strict=False))
    ]
    n = len(rows)
    labels = Labels(
        [None] * n,
        [r.study for r in rows],
        [None] * n,
        np.array([1.0 - (r.p_abnormal > 0.5) for r in rows]),
        np.full(n, -1),
    )
    html = render(assessed(dataclasses.replace(predictions, images=tuple(rows)), labels), Pictures(images=root))
    assert "<img" not in html
    assert html.count("not below the folder given") == n


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_fits_a_telephone_and_prints(full, tmp_path):
    write_report(tmp_path / "report.html", full)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-sync",
        "--disable-background-networking",
        "--hide-scrollbars",
    ]
    flags += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    # The least width of a window is more than a telephone's: a frame of 375 pixels takes its place.
    (tmp_path / "probe.html").write_text(PROBE)
    command = [CHROMIUM, *flags, "--allow-file-access-from-files", "--dump-dom", f"file://{tmp_path}/probe.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search(r"width=\d+ outside=\d+ h2=\d+", dom)[0] == "width=375 outside=0 h2=15"
    pdf = tmp_path / "report.pdf"
    command = [CHROMIUM, *flags, f"--print-to-pdf={pdf}", f"file://{tmp_path}/report.html"]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 20
