"""LaTeX tables with hostile names."""

from __future__ import annotations

import re

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from analysis.tables.latex import escape, tabular


@given(st.text())
def test_escaped_text_contains_no_command(text: str) -> None:
    commands = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[{}$&#%_]"
    commands += r"|\$-\$|\$\\Delta\$|\{\[\}|\{\]\}"
    left = re.sub(commands, "", escape(text))
    assert not re.search(r"[\\{}$&#%_~^\n\r]", left)


def test_table_with_hostile_names_keeps_its_shape() -> None:
    names = [r"\input{/etc/passwd}", "a & b \\\\ \\hline", "50%\n\\end{tabular}"]
    columns = pd.MultiIndex.from_tuples([("en", "W-F1"), ("en", "ΔTPR"), ("a&b", "x_1")])
    made = tabular(pd.DataFrame([["1.00", "−2.00", "–"]] * 3, index=names, columns=columns), "100 % of $x$")

    assert r"\input" not in made and r"\hline" not in made and made.count(r"\end{tabular}") == 1
    rows = made.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 3
    for row in rows:
        assert row.endswith(r"& 1.00 & $-$2.00 & -- \\") and len(re.findall(r"(?<!\\)&", row)) == 3
    assert r"\multicolumn{2}{c}{en} & a\&b \\" in made
    assert r"\caption{100 \% of \$x\$}" in made
