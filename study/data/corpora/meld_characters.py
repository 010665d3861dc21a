"""Genders of the named characters of the series that MELD and MELD-ST are cut from; a table of our own.

Names are spelt as ``speaker_gender.normalised_name`` returns them. The table omits characters whose gender we do not
know for certain: extras who are named by a job, and characters whose own gender is part of their story.
"""

from __future__ import annotations

_FEMALE = """
monica, phoebe, rachel,
alice, amy, angela, annabelle, bernice, bonnie, brenda, caitlin, carol, cassie, cecilia, charlie, chloe, cookie, dana,
dina, dr long, dr zane, elizabeth, emily, erica, erin, estelle, evil bitch, fake monica, frannie, ginger, hope,
isabella, jade, jane, janice, janine, jeannine, jen, jessica lockhart, jill, joanna, joanne, judy, julie, kate, kathy,
katie, kiki, kim, kori, krista, kristen, kristin, lauren, leslie, lorraine, lydia, marjorie, megan, melissa, mindy,
mischa, molly, mona, nancy, nora, paula, ronni, sarah, shelley, sophie, stephanie, stripper, susan, trudie styler,
ursula, whitney
"""

_MALE = """
chandler, joey, ross,
alan, allesandro, barry, ben, bob, bobby, burt, carl, charlton heston, chip, cliff, danny, david, doctor connelly, doug,
dr baldhara, dr drake remoray, dr franzblau, dr green, dr harad, dr ledbetter, dr leedbetter, dr oberman,
dr stryker ramoray, dr wesley, drew, duncan, earl, eric, frank, gary, gavin, gunther, guru saj, hoshi, issac, jack,
jake, jason, jay leno, jim, joey's hand twin, joshua, julio, kyle, larry, liam, marc, mark, max, mike, paolo, parker,
paul, pete, peter, raymond, richard, rick, robert, roger, russell, sergei, stanley, steve, stu, tag, terry, tom, tommy,
tony, vince, wayne, young ethan
"""


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split(",") if name.strip()]


CHARACTERS: dict[str, str] = dict.fromkeys(_names(_FEMALE), "female") | dict.fromkeys(_names(_MALE), "male")
