"""Tables for a paper: LaTeX with booktabs, every name escaped."""

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
    "[": "{[}",  # after \\ a bracket would be a length
    "]": "{]}",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
}


def escape(text: object) -> str:
    r"""Text that LaTeX sets as it stands; white space of any kind becomes a blank.

    >>> print(escape("50 % of A_1 \\ {x}\n−2"))
    50 \% of A\_1 \textbackslash{} \{x\} $-$2
    """
    return "".join(_SPECIAL.get(character, character) for character in " ".join(str(text).split()))


def tabular(table: pd.DataFrame, caption: str) -> str:
    """A ``table`` with a ``tabular`` in it; the document needs the packages ``booktabs`` and ``adjustbox``.

    Args:
        table: of strings; the index is the first column, columns of two levels become spanning headings.
        caption: plain words.
    """
    styler = table.style.format(escape).format_index(escape, axis=0).format_index(escape, axis=1)
    made = styler.to_latex(column_format="l" + "r" * table.shape[1], hrules=True, multicol_align="c")
    return "\n".join(
        [
            r"\begin{table*}[t]",
            rf"\caption{{{escape(caption)}}}",
            r"\begin{adjustbox}{max width=\linewidth}",
            f"{made}\\end{{adjustbox}}",
            r"\end{table*}",
            "",
        ]
    )
