"""Nasty files: what is nasty about each, its bytes, and the outcome of every row.

``python tests/data/nasty_files.py`` writes them beside this module, into ``files``; a
test holds the two against each other.
"""

import bz2
import codecs
import json
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

FILES = Path(__file__).parent / "files"
HEAD = "first_name,last_name,email,phone"
WITH_NOTES = f"{HEAD},notes"
WITH_ID = f"{HEAD},external_id"

Good = tuple[str, str, str, str, str | None]
"""First name, last name, email address, phone number, external id."""


@frozen(kw_only=True)
class Nasty:
    """A nasty file."""

    name: str
    why: str
    """What is nasty about it."""
    data: bytes
    rows: Mapping[int, Good | str] = field(factory=dict)
    """By the line that the row begins on: the candidate, or words of why it is rejected."""
    error: str | None = None
    """Words of why none of it is read."""
    encoding: str | None = None
    columns: Mapping[str, str | None] | None = None
    region: str | None = None
    suffix: str = ".csv"


def person(number: int, **changes: str | None) -> Good:
    """Return a candidate as it should be read."""
    values = {
        "first_name": f"Zoë{number}",
        "last_name": f"Müller{number}",
        "email": f"p{number}@example.com",
        "phone": f"+1202555{number:04d}",
        "external_id": None,
    } | changes
    first, last, email, phone, _ = values.values()
    return str(first), str(last), str(email), str(phone), values["external_id"]


def line(number: int, **changes: str | None) -> str:
    """Return a candidate as a line of CSV without quotes."""
    return ",".join(value for value in person(number, **changes) if value is not None)


def text(*lines: str, end: str = "\n", encoding: str = "utf-8") -> bytes:
    """Return the bytes of lines."""
    return "".join(each + end for each in lines).encode(encoding)


def quotes() -> list[Nasty]:
    """Return files whose quotes don't do what quotes do."""
    return [
        Nasty(
            name="quote_never_closed",
            why="A quote before a first name is never closed, so that all after it is one cell.",
            data=text(HEAD, line(1), '"' + line(2), line(3), line(4)),
            rows={2: person(1), 3: "quote that line 3 opens", 4: person(3), 5: person(4)},
        ),
        Nasty(
            name="quote_open_in_the_middle",
            why="The quote is opened in the second cell, and never closed.",
            data=text(HEAD, line(1), line(2, last_name='"Lee'), line(3)),
            rows={2: person(1), 3: "quote that line 3 opens", 4: person(3)},
        ),
        Nasty(
            name="quote_open_in_the_last_cell",
            why="The last cell of a line is opened, and swallows the line's end.",
            data=text(HEAD, line(1, phone='"+12025550001'), line(2), line(3)),
            rows={2: "quote that line 2 opens", 3: person(2), 4: person(3)},
        ),
        Nasty(
            name="quote_open_in_the_last_line",
            why="Only the end of the file closes the quote, and no line follows.",
            data=text(HEAD, line(1), line(2, phone='"+12025550002')),
            rows={2: person(1), 3: "quote that line 3 opens"},
        ),
        Nasty(
            name="quote_closed_by_a_good_one",
            why="The quote is closed by the opening quote of a good cell two lines below.",
            data=text(HEAD, '"' + line(1), line(2), line(3, last_name='"Lee, Jr"'), line(4)),
            rows={
                2: "quote that line 2 opens",
                3: person(2),
                4: person(3, last_name="Lee, Jr"),
                5: person(4),
            },
        ),
        Nasty(
            name="quote_closed_by_another_stray",
            why="Two stray quotes make one well-formed record of three lines and all its cells.",
            data=text(HEAD, '"' + line(1), line(2), line(3, first_name='Bob"'), line(4)),
            rows={
                2: "quote that line 2 opens",
                3: person(2),
                4: "lies within the quote that line 2 opens",
                5: person(4),
            },
        ),
        Nasty(
            name="quotes_of_neighbours",
            why="Two lines with a stray quote each are one record with the right count of cells.",
            data=text(HEAD, line(1, last_name='"Lee'), line(2, last_name='Lee"'), line(3)),
            rows={
                2: "quote that line 2 opens",
                3: "lies within the quote that line 2 opens",
                4: person(3),
            },
        ),
        Nasty(
            name="quote_open_in_an_ignored_column",
            why="A note opens the quote, so that every cell that counts looks good.",
            data=text(WITH_NOTES, line(1) + ",x", line(2) + ',"late', line(3) + ",y"),
            rows={2: person(1), 3: "quote that line 3 opens", 4: person(3)},
        ),
        Nasty(
            name="note_that_quotes_rows",
            why="A note holds the line of a person who is not to be invited.",
            data=text(WITH_NOTES, line(1) + ',"fwd:', line(9) + ",x", 'end"', line(2) + ",y"),
            rows={
                2: "quote that line 2 opens",
                3: "lies within the quote that line 2 opens",
                4: "lies within the quote that line 2 opens",
                5: person(2),
            },
        ),
        Nasty(
            name="note_with_line_breaks",
            why="A note has line breaks, delimiters and an @, and is nothing but a note.",
            data=text(WITH_NOTES, line(1) + ',"a', "b, c, d@e", 'f"', line(2) + ",y"),
            rows={2: person(1), 5: person(2)},
        ),
        Nasty(
            name="one_quote_missing_among_many",
            why="All cells are quoted; one lacks its closing quote, one its opening quote.",
            data=text(
                HEAD,
                '"A","Lee","a@example.com","+12025550001"',
                '"B","Lee,"b@example.com","+12025550002"',
                '"C",Lee","c@example.com","+12025550003"',
                '"D","Lee","d@example.com","+12025550004"',
            ),
            rows={
                2: ("A", "Lee", "a@example.com", "+12025550001", None),
                3: "Text follows a closing quote",
                4: ("C", 'Lee"', "c@example.com", "+12025550003", None),
                5: ("D", "Lee", "d@example.com", "+12025550004", None),
            },
        ),
        Nasty(
            name="quotes_within_quotes",
            why="Quotes within quotes are neither doubled nor escaped.",
            data=text(HEAD, line(1, first_name='"Bob "B" C"'), line(2)),
            rows={2: "Text follows a closing quote", 3: person(2)},
        ),
        Nasty(
            name="backslashes_before_quotes",
            why="An export of MySQL escapes quotes, and has \\N for NULL.",
            data=text(
                WITH_ID,
                '"Bob \\"B\\"","O\\\'Neil","b@example.com","+12025550001",\\N',
                '"Ann","Lee","a@example.com","+12025550002","17"',
            ),
            rows={
                2: ('Bob "B"', "O'Neil", "b@example.com", "+12025550001", None),
                3: ("Ann", "Lee", "a@example.com", "+12025550002", "17"),
            },
        ),
        Nasty(
            name="backslashes_that_escape_other_things",
            why="A backslash stands for a tab in a name; no one is called so.",
            data=text(HEAD, line(1, first_name="A\\tB"), line(2)),
            rows={2: "backslash", 3: person(2)},
        ),
        Nasty(
            name="spaces_after_quotes",
            why="Spaces stand around delimiters, outside the quotes.",
            data=text(HEAD, '"A" , "Lee, Jr" , "a@example.com" , "+12025550001"'),
            rows={2: ("A", "Lee, Jr", "a@example.com", "+12025550001", None)},
        ),
        Nasty(
            name="names_with_apostrophes",
            why="Names begin and end with apostrophes, which are quotes elsewhere.",
            data=text(HEAD, line(1, first_name="'t Hooft"), line(2, last_name="D'Arc'")),
            rows={2: person(1, first_name="'t Hooft"), 3: person(2, last_name="D'Arc'")},
        ),
        Nasty(
            name="quotes_are_apostrophes",
            why="Apostrophes are the quotes, doubled in a name.",
            data=text(
                HEAD.replace(",", ";"),
                "'A';'O''Neil';'a@example.com';'+12025550001'",
                "'B';'Lee; Jr';'b@example.com';'+12025550002'",
            ),
            rows={
                2: ("A", "O'Neil", "a@example.com", "+12025550001", None),
                3: ("B", "Lee; Jr", "b@example.com", "+12025550002", None),
            },
        ),
    ]


def encodings() -> list[Nasty]:
    """Return files whose bytes are not plainly UTF-8."""
    good = text(HEAD, line(1), line(2))
    rows = {2: person(1), 3: person(2)}
    return [
        Nasty(
            name="one_stray_byte",
            why="One byte of Windows-1252 stands in a file of UTF-8.",
            data=good + b"Caf\xe9,Lee,c@example.com,+12025550003\n",
            rows={**rows, 4: "first_name holds characters that aren't text"},
        ),
        Nasty(
            name="cut_in_a_character",
            why="The file ends within a character of UTF-8.",
            data=good + line(3, phone="+12025550003,Ü").encode()[:-1],
            rows={**rows, 4: "more cells than the header"},
        ),
        Nasty(
            name="cut_in_a_name",
            why="The file ends within a name, in half a character.",
            data=good + "Zoë".encode()[:-1],
            rows={**rows, 4: "first_name"},
        ),
        Nasty(
            name="stray_byte_in_an_ignored_column",
            why="The stray byte is in a cell that is not read.",
            data=text(WITH_NOTES, line(1) + ",ok") + line(2).encode() + b",caf\xe9\n",
            rows=rows,
        ),
        Nasty(
            name="windows_1252",
            why="All of it is Windows-1252, typographic apostrophe included.",
            data=text(HEAD, line(1), line(2, last_name="O\u2019Brien"), encoding="cp1252"),
            rows={2: person(1), 3: person(2, last_name="O\u2019Brien")},
        ),
        Nasty(
            name="windows_1252_with_a_line_of_utf_8",
            why="Someone pasted a line of UTF-8 into a file of Windows-1252.",
            data=text(HEAD, line(1), line(2), line(4), encoding="cp1252") + text(line(3)),
            rows={**rows, 4: person(4), 5: "first_name makes no sense in Windows-1252"},
        ),
        Nasty(
            name="windows_1250",
            why="Polish names in Windows-1250 are other letters and signs in Windows-1252.",
            data=text(HEAD, line(1, first_name="Michał", last_name="Żak"), encoding="cp1250"),
            rows={2: "makes no sense in Windows-1252"},
        ),
        Nasty(
            name="windows_1251",
            why="Cyrillic names in Windows-1251 are words of accented letters in Windows-1252.",
            data=text(HEAD, line(1, first_name="Иван", last_name="Ли"), encoding="cp1251"),
            rows={2: "makes no sense in Windows-1252"},
        ),
        Nasty(
            name="windows_1251_named",
            why="The same, with its encoding given.",
            data=text(HEAD, line(1, first_name="Иван", last_name="Ли"), encoding="cp1251"),
            rows={2: person(1, first_name="Иван", last_name="Ли")},
            encoding="cp1251",
        ),
        Nasty(
            name="encoded_twice",
            why="UTF-8 was read as Windows-1252 before, and written as UTF-8 again.",
            data=text(HEAD, line(1)).decode("cp1252").encode(),
            rows={2: "UTF-8 that was read as Windows-1252"},
        ),
        Nasty(
            name="replacement_characters",
            why="Whatever wrote the file had lost the letters already.",
            data=text(HEAD, line(1, first_name="Zo\ufffd"), line(2)),
            rows={2: "first_name holds characters that aren't text", 3: person(2)},
        ),
        Nasty(
            name="two_byte_order_marks",
            why="Two programs put a byte order mark in front, one after the other.",
            data=codecs.BOM_UTF8 * 2 + good,
            rows=rows,
        ),
        Nasty(
            name="utf_16_with_a_mark",
            why="Excel's Unicode text: UTF-16, parted by tabs.",
            data=good.decode().replace(",", "\t").encode("utf-16"),
            rows=rows,
        ),
        Nasty(
            name="utf_16_cut",
            why="UTF-16 ends in half a character.",
            data=good.decode().rstrip().encode("utf-16")[:-1],
            rows={2: person(1), 3: "phone holds characters that aren't text"},
        ),
        Nasty(
            name="utf_16_without_a_mark",
            why="UTF-16 without a mark is ASCII with zeros in between.",
            data=good.decode().encode("utf-16-le"),
            error='encoding="utf-16-le"',
        ),
        Nasty(
            name="utf_16_without_a_mark_big_endian",
            why="The same, the other way round.",
            data=good.decode().encode("utf-16-be"),
            error='encoding="utf-16-be"',
        ),
        Nasty(
            name="utf_16_named",
            why="UTF-16 without a mark, with its encoding given.",
            data=good.decode().encode("utf-16-le"),
            rows=rows,
            encoding="utf-16-le",
        ),
        Nasty(
            name="utf_32",
            why="The mark of UTF-32 begins with that of UTF-16.",
            data=good.decode().encode("utf-32"),
            rows=rows,
        ),
    ]


def no_text() -> list[Nasty]:
    """Return files that only have the name of a CSV file."""
    good = text(HEAD, line(1))
    packed = {
        "gzip": zlib.compress(good, wbits=31),
        "bzip2": bz2.compress(good),
        "xz": lzma.compress(good),
        "zstd": bytes.fromhex("28b52ffd2004210000") + b"text",
    }
    return [
        *(
            Nasty(name=f"compressed_{kind}", why="It is compressed.", data=data, error=kind)
            for kind, data in packed.items()
        ),
        Nasty(
            name="workbook",
            why="An Excel workbook was renamed rather than exported.",
            data=b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00[Content_Types].xml",
            error="workbook (.xlsx",
        ),
        Nasty(
            name="old_workbook",
            why="So was one of Excel 97.",
            data=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(120),
            error="Excel workbook (.xls)",
        ),
        Nasty(
            name="web_page",
            why="The export is a table in HTML, as some programs call Excel's format.",
            data=b"<html><body><table><tr><td>first_name</td></tr></table></body></html>",
            error="HTML",
        ),
        Nasty(
            name="zero_bytes",
            why="Some program's binary file.",
            data=bytes(range(4)) * 40,
            error="zero bytes",
        ),
        Nasty(name="empty", why="There is nothing in it.", data=b"", error="lacks first_name"),
        Nasty(
            name="no_header",
            why="The first line is a person already.",
            data=text(line(1), line(2)),
            error="must name its columns",
        ),
    ]


def layouts() -> list[Nasty]:
    """Return files whose lines or columns are not where one expects them."""
    rows = {2: person(1), 3: person(2)}
    return [
        Nasty(
            name="carriage_returns",
            why="Lines end as on an old Macintosh.",
            data=text(HEAD, line(1), line(2), end="\r"),
            rows=rows,
        ),
        Nasty(
            name="carriage_returns_twice",
            why="Lines end with two carriage returns and a line feed: together they are one end.",
            data=text(HEAD, line(1), line(2), end="\r\r\n"),
            rows={2: person(1), 3: person(2)},
        ),
        Nasty(
            name="separator_line",
            why="Excel's own first line names the delimiter; blank lines follow.",
            data=text("sep=;", HEAD.replace(",", ";"), "", line(1).replace(",", ";"), ";;;"),
            rows={4: person(1)},
        ),
        Nasty(
            name="delimiter_in_a_name",
            why="A name holds the delimiter without quotes, so the cells move to the right.",
            data=text(HEAD, line(1, last_name="Lee, Jr"), line(2)),
            rows={2: "more cells than the header", 3: person(2)},
        ),
        Nasty(
            name="zero_in_a_name",
            why="One zero byte stands in a file that is text otherwise.",
            data=text(HEAD, line(1, first_name="A\0B"), line(2)),
            rows={2: "first_name holds characters that aren't text", 3: person(2)},
        ),
        Nasty(
            name="columns_in_another_language",
            why="The columns are named in German, and two of them hold phone numbers.",
            data=text("Vorname;Name;Mail;Mobil;Phone", line(1).replace(",", ";") + ";x"),
            rows={2: person(1)},
            columns={
                "VORNAME": "first_name",
                "Name": "last_name",
                "Mail": "email",
                "Mobil": "phone",
            },
        ),
        Nasty(
            name="two_phone_columns",
            why="Two columns mean the phone, and nothing says which.",
            data=text(f"{HEAD},Phone Number", line(1) + ",+12025550009"),
            error="Two columns mean phone",
        ),
    ]


def spreadsheets() -> list[Nasty]:
    """Return files that went through a spreadsheet or a data frame."""

    def ids(*values: str) -> bytes:
        return text(WITH_ID, *(line(n) + f",{value}" for n, value in enumerate(values, start=1)))

    def phones(*values: str) -> bytes:
        return text(HEAD, *(line(n, phone=value) for n, value in enumerate(values, start=1)))

    changed = "spreadsheet or data frame has changed the row's external_id"
    return [
        Nasty(
            name="phones_with_point_zero",
            why="Phones went through floats, one of them twice.",
            data=phones("+12025550001.0", "12025550002.0", "+12025550003.00"),
            rows={2: person(1), 3: "Spreadsheets drop the +", 4: "spreadsheet"},
        ),
        Nasty(
            name="phones_in_scientific_notation",
            why="A narrow column showed the numbers as powers of ten.",
            data=phones("1.20256E+10", "+1.20256e+10", '"1,20256E+10"'),
            rows={2: "spreadsheet", 3: "spreadsheet", 4: "spreadsheet"},
        ),
        Nasty(
            name="phones_with_thousands",
            why="The numbers got thousands separators.",
            data=phones('"12,025,550,123"', "12'025'550'123.00"),
            rows={2: "spreadsheet", 3: "spreadsheet"},
        ),
        Nasty(
            name="phones_that_lost_their_plus",
            why="Whole numbers lost their +; in Germany they may be German or American.",
            data=phones("15123456789", "0151 23456789", "+15123456789", "4915123456789"),
            rows={
                2: "spreadsheet",
                3: person(2, phone="+4915123456789"),
                4: person(3, phone="+15123456789"),
                5: "spreadsheet",
            },
            region="DE",
        ),
        Nasty(
            name="phones_marked_as_text",
            why="An apostrophe or a formula kept the number text.",
            data=phones("'+12025550001", '"=""+12025550002"""'),
            rows={2: person(1), 3: person(2)},
        ),
        Nasty(
            name="ids_as_numbers",
            why="Ids went through floats, or were shown in short.",
            data=ids("1001", "1001.0", "1.5E+05", '"12,025"', "12E5", "007"),
            rows={
                2: person(1, external_id="1001"),
                3: changed,
                4: changed,
                5: changed,
                6: person(5, external_id="12E5"),
                7: person(6, external_id="007"),
            },
        ),
        Nasty(
            name="ids_that_are_errors",
            why="Formulas failed, and a column was too narrow.",
            data=ids("#N/A", "#REF!", "########"),
            rows={2: changed, 3: changed, 4: changed},
        ),
        Nasty(
            name="nothing_as_a_word",
            why="A data frame wrote words where there was nothing; Null is a name.",
            data=ids("nan", "None", "<NA>", "NULL") + text(line(5, last_name="Null") + ","),
            rows={
                **{number + 1: person(number) for number in range(1, 5)},
                6: person(5, last_name="Null"),
            },
        ),
        Nasty(
            name="names_as_nothing",
            why="A missing name and a missing phone became nan.",
            data=text(HEAD, line(1, first_name="nan"), line(2, phone="nan"), line(3)),
            rows={2: "no first_name", 3: "no phone", 4: person(3)},
        ),
        Nasty(
            name="invisible_characters",
            why="Marks and spaces that are not seen came with copied cells.",
            data=text(
                WITH_ID,
                "\u200bAnn\ufeff,Lee,\ufeffa@example.com,\u202a+12025550001\u202c,\u200bX1\ufeff",
                "Bob,Lee,b@\u200bexample.com\u00a0,+1\u00a0202\u00a05550002,\u00adX2\u2060",
                "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627,Lee,c@example.com,+12025550003,X3",
            ),
            rows={
                2: ("Ann", "Lee", "a@example.com", "+12025550001", "X1"),
                3: ("Bob", "Lee", "b@example.com", "+12025550002", "X2"),
                4: (
                    "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
                    "Lee",
                    "c@example.com",
                    "+12025550003",
                    "X3",
                ),
            },
        ),
    ]


def json_lines() -> list[Nasty]:
    """Return nasty files of JSON Lines."""
    names = ("firstName", "lastName", "email", "phone", "externalId")

    def line_of(number: int, **changes: object) -> str:
        return json.dumps(dict(zip(names, person(number), strict=True)) | changes)

    return [
        Nasty(
            name="json_numbers",
            why="Ids are numbers, floats and no numbers; a power of ten has lost digits.",
            data=text(
                line_of(1, externalId=1001),
                line_of(2, externalId=1001.0),
                line_of(3, externalId=float("nan")),
                line_of(4).replace('"+12025550004"', "1.20256E+10"),
                line_of(5, externalId=True),
            ),
            rows={
                1: person(1, external_id="1001"),
                2: person(2, external_id="1001"),
                3: person(3),
                4: "spreadsheet",
                5: "external_id must be text",
            },
            suffix=".jsonl",
        ),
        Nasty(
            name="json_broken_lines",
            why="Lines are cut, no objects, or have one name twice.",
            data=text(
                line_of(1)[:-9],
                "[1]",
                line_of(2).replace("{", '{"email": "other@example.com", '),
                "",
                line_of(3),
            ),
            rows={1: "not JSON", 2: "not a JSON object", 3: "name twice", 5: person(3)},
            suffix=".jsonl",
        ),
        Nasty(
            name="json_array",
            why="It is one array over many lines.",
            data=json.dumps([json.loads(line_of(1))], indent=1).encode(),
            error="one object on each line",
            suffix=".json",
        ),
    ]


def nasty_files() -> list[Nasty]:
    """Return all nasty files."""
    return [
        *quotes(),
        *encodings(),
        *no_text(),
        *layouts(),
        *spreadsheets(),
        *json_lines(),
    ]


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    for old in FILES.iterdir():
        old.unlink()
    for each in nasty_files():
        (FILES / f"{each.name}{each.suffix}").write_bytes(each.data)
