"""The words of a statement of SQL that are outside its literals and comments.

Databases differ in where those end, and which database is asked is not known here. So a text
is read in each dialect that it may be meant for: PostgreSQL's, SQLite's, and those that MySQL
and MariaDB have by their sql_mode. Whoever asks decides what to do when they disagree.

Work and memory grow with the length of the text and no faster: all quantifiers that could go
back are possessive, and what has no end is looked through once.
"""

from __future__ import annotations

import re
from typing import Final


def readings(sql: str) -> list[list[str]]:
    """The words of `sql`, in capitals, as each dialect reads them.

    Beside words there are numbers, the signs "(", ")", "=" and ";", and quoted names that may
    be those of functions; these end in their quote. A statement in which a literal has no end
    is left out: the database refuses it, but not those before it. For what a dialect may
    know and this module does not, such as comments that MySQL carries out, the word is "?".
    """
    if "\0" in sql:
        return [["?"]]
    sql = _HASH.sub("", sql)
    dialects = _DIALECTS if any(sign in sql for sign in _AMBIGUOUS) else _DIALECTS[:1]
    return [_words(sql, dialect) for dialect in dialects]


def _words(sql: str, dialect: re.Pattern[str]) -> list[str]:
    bare = dialect.sub(r"\g<name>\g<lost> ", f"{sql}\n\0")
    if bare.endswith("\0"):
        return _WORDS.findall(bare.upper())
    if bare.endswith("\0 "):
        return ["?"]
    return _WORDS.findall(bare[: bare.rfind(";") + 1].upper())


#: Comments of MySQL at the beginning, where the others have nothing that begins so.
_HASH: Final = re.compile(r"\A(?:\s*+\#[^\n]*+\n)++")

#: In a text with none of these all dialects see the same words.
_AMBIGUOUS: Final = ("\\", "#", "$", "[", "--", "/*")

#: Words, and names with the quote that ended them; numbers, which some databases end where a
#: word begins, as the drivers do their placeholders; and the signs that rules ask for.
_WORDS: Final = re.compile(
    r"[^\W\d][\w$]*[\"`]?|[(=);]|%(?:\([^()]*+\))?[SBT]|\d[\d.]*(?:E[+-]?\d+)?"
)

# Patterns of what a dialect replaces by a space. The character that opens it has been read: a
# lookbehind asks which one it was, so that the search has one set of characters to look for.
# What has no end swallows the rest, and with it the "\0" behind the text: nothing is looked at
# twice. "Lost" is what has no end here, but may have one for the database.

#: A quoted name before a "(" can be a function. Comments may stand between.
_NAME: Final = r"""(?<=["`])(?P<name>\w++(?P=open))(?=\s*+(?:\(|/\*|--|\#))"""
_BLOCK: Final = r"(?<=/)\*(?s:.*?)\*/"
#: A quote that stands for itself is written twice. That makes two literals of one, which is
#: the same here. Backticks are quotes in each dialect: no operator of PostgreSQL has one.
_QUOTED: Final = r"""(?<=')[^']*+'|(?<=")[^"]*+"|(?<=`)[^`]*+`|(?<=['"`])(?s:.*)"""


def _dialect(*patterns: str, lost: str = r"(?<=/)\*") -> re.Pattern[str]:
    each = "|".join([_NAME, *patterns, rf"(?:{lost})(?s:.*)(?P<lost>\0)", _QUOTED])
    return re.compile(rf"""(?P<open>['"`/$#\[-])(?:{each})""")


def _sqlite() -> re.Pattern[str]:
    """Names may stand in brackets."""
    return _dialect(r"(?<=-)-[^\n]*+", _BLOCK, r"(?<=\[)[^\]]*+\]?")


def _postgresql() -> re.Pattern[str]:
    """Comments nest, $tag$ is a quote, and in a literal E'' a backslash escapes."""
    block = r"\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/"
    for _ in range(3):  # what nests deeper is lost
        block = rf"\*(?:[^*/]++|\*(?!/)|/(?!\*)|/{block})*+\*/"
    letter = r"A-Za-z_\x80-\U0010FFFF"
    alone = rf"(?<![$0-9{letter}])"
    dollar, tag = rf"(?<={alone}\$)", rf"(?:[{letter}][0-9{letter}]*+)?+"
    escaped = rf"(?<={alone}[Ee]')(?:[^'\\]++|\\(?s:.)|'')*+'"
    return _dialect(
        r"(?<=-)-[^\n\r]*+",
        rf"(?<=/){block}",
        rf"{dollar}(?P<tag>{tag})\$(?s:.*?)\$(?P=tag)\$",
        # A literal on the next line belongs to this one: that is not followed here.
        rf"{escaped}(?!\s*+['-])",
        lost=rf"(?<=/)\*|{dollar}{tag}\$|{escaped}",
    )


def _mysql(*escaped: str) -> re.Pattern[str]:
    """Comments begin with "#", or "--" and a space; what is in /*! and */ is carried out."""
    line = r"(?<=-)-(?=[\0-\x20\x7F])[^\n]*+|(?<=\#)[^\n]*+"
    return _dialect(line, rf"(?!\*M?!){_BLOCK}", *escaped)


#: Literals in which a backslash escapes; these don't end where others would.
_SINGLE: Final = r"""(?<=')(?:(?:[^'\\]++|\\(?s:.))*+'|(?s:.*))"""
_DOUBLE: Final = _SINGLE.replace("'", '"')

#: The first one stands for all of them where a text has nothing that they differ in.
_DIALECTS: Final = (
    _sqlite(),
    _postgresql(),
    _mysql(_SINGLE, _DOUBLE),
    _mysql(_SINGLE),  # sql_mode has ANSI_QUOTES
    _mysql(),  # sql_mode has NO_BACKSLASH_ESCAPES
)
