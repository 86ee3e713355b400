"""Output that is not UTF-8: a character that it lacks is written in other characters, and never ends a command."""

from __future__ import annotations

import codecs
import sys
import unicodedata

NAME = "vaebench"
SPELLED = {"±": "+-", "…": "...", "×": "x", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "→": "->"}
SPELLED |= {"≥": ">=", "≤": "<=", "─": "-", "━": "-", "│": "|", "·": "*", "•": "*"}


def spell_out() -> None:
    """Let the standard streams spell out what their encoding lacks."""
    codecs.register_error(NAME, _spelled)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=NAME)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_one, text)), error.end


def _one(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not text
        return f"\\x{ord(character) - 0xDC00:02x}"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return SPELLED.get(character) or plain or "?"
