"""How the bytes of a candidates file become text."""

import codecs
from pathlib import Path

__all__ = ["encoding_of"]

_BLOCK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """Return the encoding of a file: what its byte order mark says, UTF-8, or Windows-1252.

    A file without a mark is read through once, and is UTF-8 if all of it is:
    text in Windows-1252 with a letter beyond ASCII practically never is.

    Raises:
        OSError: The file can't be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        block = file.read(_BLOCK)
        for mark, encoding in _MARKS:
            if block.startswith(mark):
                return encoding
        try:
            while block:
                decoder.decode(block)
                block = file.read(_BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"
