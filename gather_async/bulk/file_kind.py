"""Kinds of files that are no text, by what they begin with."""

import re

from gather_async.errors import ConfigurationError

__all__ = ["require_text"]

_EXPORT = "export it as CSV (UTF-8)"
_UNPACK = "unpack it first"
# What a file begins with that is no text, and the way out.
_KINDS = (
    (b"PK\x03\x04", "a workbook (.xlsx, .ods) or another ZIP archive", _EXPORT),
    (b"PK\x05\x06", "an empty ZIP archive", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _EXPORT),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"PAR1", "a Parquet file", _EXPORT),
    (b"%PDF-", "a PDF document", _EXPORT),
    (b"{\\rtf", "an RTF document", _EXPORT),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK),
    (b"ARROW1", "an Arrow file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"\x89PNG", "an image", _EXPORT),
    (b"\xff\xd8\xff", "an image", _EXPORT),
    (b"BEGIN:VCARD", "made of vCards", _EXPORT),
    (b"-----BEGIN PGP", "encrypted", "decrypt it first"),
)
_MARKUP = re.compile(rb"\s*<(?:!doctype|html|table|\?xml|\?mso|head|body)", re.IGNORECASE)


def require_text(head: bytes, *, is_known: bool = False) -> None:
    """Refuse a file that begins with what no text does.

    Args:
        head: The file's first bytes.
        is_known: Whether the encoding is, so that zero bytes may be a part of it.

    Raises:
        ConfigurationError: It is another kind of file, which the message names.
    """
    for magic, kind, advice in _KINDS:
        if head.startswith(magic):
            raise ConfigurationError(f"The file is no text, but {kind}: {advice}.")
    if _MARKUP.match(head):
        raise ConfigurationError(f"The file is an HTML or XML document: {_EXPORT}.")
    start = head[:400]
    if is_known or start.count(0) * 8 < len(start) or not start:
        return
    odd, even = start[1::2].count(0), start[::2].count(0)
    if min(odd, even) * 4 > max(odd, even) or max(odd, even) * 3 < len(start):
        raise ConfigurationError(f"The file is no text: it holds zero bytes; {_EXPORT}.")
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    raise ConfigurationError(
        f'The file is UTF-16 without a byte order mark: pass encoding="{encoding}"'
        f" (--encoding {encoding}), or {_EXPORT}."
    )
