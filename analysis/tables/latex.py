"""Tables for a paper: LaTeX with booktabs."""

from __future__ import annotations

import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # directly after \\ a bracket would start a length
    "]": "{]}",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
}


def escape(text: object) -> str:
    r"""Escape text for LaTeX; white space of any kind becomes one blank.

    pandas' own escaping leaves brackets, ``<``, ``>``, ``|`` and the characters −, – and Δ as they are.

    >>> print(escape("50 % of A_1 \\ {x}\n−2"))
    50 \% of A\_1 \textbackslash{} \{x\} $-$2
    """
    return "".join(_SPECIAL.get(character, character) for character in " ".join(str(text).split()))


def tabular(table: pd.DataFrame, caption: str) -> str:
    """Return a ``table*`` environment; the document needs the packages ``booktabs`` and ``adjustbox``.

    Args:
        table: of strings; the index is the first column, columns of two levels become spanning headings.
        caption: plain text.
    """
    styler = table.style.format(escape).format_index(escape, axis=0).format_index(escape, axis=1)
    latex = styler.to_latex(
        column_format="l" + "r" * table.shape[1], hrules=True, multicol_align="c", caption=escape(caption),
        environment="table*", position="t",
    )  # fmt: skip
    latex = latex.replace(r"\begin{tabular}", "\\begin{adjustbox}{max width=\\linewidth}\n\\begin{tabular}")
    return latex.replace(r"\end{tabular}", "\\end{tabular}\n\\end{adjustbox}")
