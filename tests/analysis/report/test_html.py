"""The HTML page: names are escaped, and numeric columns are marked."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from analysis.loading.study import load_study
from analysis.report.build import write_report
from analysis.report.html import MAX_OPEN_ROWS, Picture, Section, Table, render_page
from tests.analysis import studies

HOSTILE = "</script><img src=x onerror=alert(1)> & \\input{x} \"q' $y$"
TABLE = pd.DataFrame(
    {"configuration": ["b", "trial 10", "trial 9"], "gap": [float("nan"), -2.0, 10.0], "p": ["<0.001", "0.030", ""]}
)


def page(*sections: Section) -> str:
    return render_page("a study", "An answer.", ["A warning."], sections, {"command": "x"}, "{}")


class Elements(html.parser.HTMLParser):
    """Collect the tags that a browser sees, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data if self.tags and self.tags[-1] not in ("style", "script") else ""


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=15, configurations=3)
    plan = folder.read_json("study.json")
    plan |= {"name": HOSTILE, "command": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    plan["corpus"] |= {"name": HOSTILE, "notes": [HOSTILE]}
    folder.write_json("study.json", plan)
    trial = folder.read_json("trials/00002.json")
    folder.write_json("trials/00002.json", trial | {"label": HOSTILE, "hyperparameters": {HOSTILE: HOSTILE}})
    studies.write_trial(folder, 7, "failed0", reason=HOSTILE)

    write_report(load_study(folder), 20, 20)

    made = Elements((tmp_path / "s" / "report" / "report.html").read_text())
    assert made.tags.count("script") == 1 and made.words.count(HOSTILE) > 6
    assert made.loaded and all(value.startswith("data:image/svg+xml;base64,") for value in made.loaded)
    assert b"<img" not in (tmp_path / "s" / "report" / "pareto.svg").read_bytes()
    for name in ("arms.tex", "benchmark.tex"):
        assert not re.search(r"\\input|[^\\]\$y", (tmp_path / "s" / "report" / name).read_text())


def test_numbers_and_ranges_are_numeric_columns() -> None:
    made = page(Section("One", blocks=(Table(TABLE),)))
    assert (
        '<th scope="col">configuration</th><th scope="col" class="n">gap</th><th scope="col" class="n">p</th>' in made
    )


def test_spanning_headings_folded_tables_and_pictures() -> None:
    columns = pd.MultiIndex.from_tuples([("", "configuration"), ("en", "W-F1"), ("en", "ACC")])
    spanning = pd.DataFrame([["ERM", 1.0, 2.0]], columns=columns)
    long = pd.DataFrame({"configuration": [f"trial {i}" for i in range(MAX_OPEN_ROWS + 1)]})
    made = page(Section("One", "Words.", (Table(spanning), Table(long), Picture(b"<svg/>", "what it shows", "More"))))

    assert '<th colspan="2" scope="colgroup" class="over">en</th>' in made
    assert f"<summary>All {MAX_OPEN_ROWS + 1} rows</summary>" in made and "<summary>More</summary>" in made
    assert made.count('<div class="scroll" tabindex="0" role="region"') == 3  # a keyboard can scroll each
    assert 'alt="what it shows"' in made and made.count("<details>") == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_browser_sorts_by_number_with_empty_cells_last(tmp_path: Path) -> None:
    script = """<script>
      const orders = [];
      const column = i => [...document.querySelectorAll("tbody tr")].map(row => row.cells[i].textContent).join();
      const buttons = document.querySelectorAll("thead button");
      for (const i of [0, 1, 1, 2]) {
        buttons[i].click();
        orders.push(column(i) + " " + buttons[i].parentNode.getAttribute("aria-sort"));
      }
      document.title = orders.join("|");
    </script></body>"""
    file = tmp_path / "page.html"
    file.write_text(page(Section("One", blocks=(Table(TABLE),))).replace("</body>", script))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
        + [file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search("<title>(.*)</title>", done.stdout)
    assert found and html.unescape(found[1]).split("|") == [
        "b,trial 9,trial 10 ascending",
        "−2.0,10.0,– ascending",
        "10.0,−2.0,– descending",
        "<0.001,0.030, ascending",
    ]
