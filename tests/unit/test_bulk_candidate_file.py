"""Reading candidates from CSV and JSON Lines files."""

import csv
import doctest
import io
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.bulk import UnreadableRow, read_candidates
from gather_async.bulk.row_check import RowCheck, field_of, line_of
from gather_async.errors import ConfigurationError
from gather_async.models.candidate import NewCandidate
from gather_async.phone import PhonePolicy

_FIELDS = ["first_name", "last_name", "email", "phone"]
_ZOE = {
    "first_name": "Zoë",
    "last_name": "O'Brien",
    "email": "zoe@example.com",
    "phone": "+12025550123",
}


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_file_is_read_whatever_its_delimiter_and_encoding(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    """Delimiter and encoding are found out from the file."""
    lines = [_FIELDS, list(_ZOE.values())]
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    path = _write(tmp_path / "people.csv", text, encoding)
    assert list(read_candidates(path)) == [_ZOE]


@pytest.mark.parametrize(
    "header",
    [
        "firstName,lastName,email,phone",
        "first_name,last_name,email,phone",
        "First Name,LAST NAME,E-mail,Phone Number",
        " first name ,last-name,Email Address,Phone",
    ],
)
def test_headers_come_in_many_spellings(tmp_path: Path, header: str) -> None:
    """camelCase, snake_case and words with spaces mean the same column."""
    line = ",".join(_ZOE.values())
    path = _write(tmp_path / "people.csv", f"{header}\n{line}\n")
    assert list(read_candidates(path)) == [_ZOE]


def test_every_field_of_the_api_has_its_wire_name_as_header() -> None:
    """The names of the API's own documentation are understood."""
    names = ["firstName", "lastName", "email", "phone", "externalId", "timezone", "smsOptIn"]
    assert [field_of(name) for name in names] == [
        *_FIELDS,
        "external_id",
        "timezone",
        "sms_opt_in",
    ]
    assert field_of("shoe size") is None


def test_quoted_cells_may_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    """What the csv module writes comes back as it was."""
    path = tmp_path / "people.csv"
    rows = [
        {**_ZOE, "last_name": 'Smith, "Bob"; Jr'},
        {**_ZOE, "last_name": "two\n\nlines"},
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    assert list(read_candidates(path)) == rows


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_that_come_later_are_read_as_well(tmp_path: Path, quote: str) -> None:
    """Doubled quotes after the sample, and spaces after delimiters, don't depend on luck."""
    plain = ", ".join(f"{quote}{cell.replace(quote, quote * 2)}{quote}" for cell in _ZOE.values())
    odd = plain.replace("Zoë", f"{quote * 2}Zoë{quote * 2}, twice")
    header = ", ".join(f"{quote}{name}{quote}" for name in _FIELDS)
    path = _write(tmp_path / "people.csv", "\n".join([header, *[plain] * 60, odd, ""]))
    *plains, last = read_candidates(path)
    assert plains == [_ZOE] * 60
    assert last == {**_ZOE, "first_name": f"{quote}Zoë{quote}, twice"}


def test_blank_lines_and_excels_separator_line_are_no_rows(tmp_path: Path) -> None:
    """Blank lines, also of nothing but delimiters, don't count; ``sep=`` names the delimiter."""
    line = ";".join(_ZOE.values())
    text = f"sep=;\n{';'.join(_FIELDS)}\n\n{line}\n;;;\n{line}\n\n"
    path = _write(tmp_path / "people.csv", text)
    assert list(read_candidates(path)) == [_ZOE, _ZOE]
    assert read_candidates(path).count() == 2


def test_a_line_with_too_many_cells_is_unreadable_alone(tmp_path: Path) -> None:
    """One broken line is reported as such, and the next is read."""
    line = ",".join(_ZOE.values())
    path = _write(tmp_path / "people.csv", f"{','.join(_FIELDS)}\n{line},more\n{line}\n")
    broken, good = read_candidates(path)
    assert isinstance(broken, UnreadableRow)
    assert "more cells" in broken.reason
    assert good == _ZOE


def test_a_cell_beyond_csvs_limit_is_unreadable_alone(tmp_path: Path) -> None:
    """What the csv module refuses becomes one unreadable row."""
    line = ",".join(_ZOE.values())
    path = _write(tmp_path / "people.csv", f"{','.join(_FIELDS)}\n{'x' * 200_000},{line}\n{line}\n")
    broken, good = read_candidates(path)
    assert isinstance(broken, UnreadableRow)
    assert good == _ZOE


def test_a_file_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    """A wrong file is reported once, not once for each of its rows."""
    path = _write(tmp_path / "people.csv", "first_name,last_name,mail\nA,B,c\n")
    with pytest.raises(ConfigurationError, match="lacks email, phone"):
        list(read_candidates(path))
    path = _write(tmp_path / "twice.csv", "first_name,last_name,email,phone,Phone\nA,B,c,1,2\n")
    with pytest.raises(ConfigurationError, match="Two columns mean phone"):
        list(read_candidates(path))
    with pytest.raises(ConfigurationError, match="lacks"):
        list(read_candidates(_write(tmp_path / "empty.csv", "")))


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    """An object a line; a broken line and one that is no object are unreadable alone."""
    lines = [json.dumps({**_ZOE, "smsOptIn": True}), "{broken", "[1]", "", json.dumps(_ZOE)]
    path = _write(tmp_path / "people.jsonl", "\ufeff" + "\n".join(lines))
    first, broken, array, last = read_candidates(path)
    assert first == {**_ZOE, "smsOptIn": True}
    assert isinstance(broken, UnreadableRow)
    assert isinstance(array, UnreadableRow)
    assert last == _ZOE


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A JSON array is another format, and the error says what to write instead."""
    path = _write(tmp_path / "people.json", json.dumps([_ZOE], indent=1))
    with pytest.raises(ConfigurationError, match="one object on each line"):
        list(read_candidates(path))


def test_unknown_formats_and_codecs_are_refused_before_reading(tmp_path: Path) -> None:
    """A wrong argument is reported at the call."""
    with pytest.raises(ConfigurationError, match="format"):
        read_candidates(tmp_path / "x", format="xml")  # type: ignore[arg-type] # the point
    with pytest.raises(ConfigurationError, match="codec"):
        read_candidates(tmp_path / "x", encoding="utf-9")


def test_bytes_that_windows_1252_lacks_stay_in_their_row(tmp_path: Path) -> None:
    """A byte that is no text marks its own row, and no other."""
    head, line = ",".join(_FIELDS).encode(), ",".join(_ZOE.values()).encode("cp1252")
    path = tmp_path / "people.csv"
    path.write_bytes(head + b"\n" + line.replace(b"Zo", b"Z\x81") + b"\n" + line + b"\n")
    marked, good = read_candidates(path)
    assert isinstance(marked, dict)
    assert "\udc81" in marked["first_name"]
    assert good == _ZOE


# Without what other programs mean by more than text: the end of a file on DOS, and escapes.
_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12).filter(
    lambda cell: not re.search(r"\x1a(\n|$)|\\([\\'\",;\t|]|$)", cell)
)


@given(
    rows=st.lists(st.tuples(_CELLS, _CELLS, _CELLS, _CELLS), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, ...]],
    delimiter: str,
    quoting: int,
) -> None:
    """Any text in any usual dialect survives the round trip."""
    path = tmp_path_factory.mktemp("csv") / "people.csv"
    rows = [row for row in rows if any(map(str.strip, row))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type] # an int is one
        writer.writerow(_FIELDS)
        writer.writerows(rows)
    read: list[Any] = list(read_candidates(path))
    # Spaces around a cell mean nothing, and may be lost.
    assert [{name: cell.strip() for name, cell in row.items()} for row in read] == [
        {name: cell.strip() for name, cell in zip(_FIELDS, row, strict=True)} for row in rows
    ]


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of standard input come once, cannot be counted, and a second time is an error."""
    data = f"{','.join(_FIELDS)}\n{','.join(_ZOE.values())}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    file = read_candidates("-")
    assert file.count() is None
    assert list(file) == [_ZOE]
    with pytest.raises(ConfigurationError, match="only once"):
        list(file)


def test_a_pipe_is_longer_than_its_head(tmp_path: Path) -> None:
    """A named pipe is read to its end, guessed by its first bytes."""
    path, rows = tmp_path / "pipe", [{**_ZOE, "email": f"z{n}@example.com"} for n in range(3000)]
    os.mkfifo(path)
    text = "\n".join([",".join(_FIELDS), *(",".join(row.values()) for row in rows)])
    writer = threading.Thread(target=path.write_text, args=(text,), kwargs={"encoding": "cp1252"})
    writer.start()
    assert list(read_candidates(path)) == rows
    writer.join()


def test_columns_are_what_the_caller_says(tmp_path: Path) -> None:
    """A column means the field that is given, others of that field nothing; JSON Lines too."""
    header = "first_name,last_name,email,Mobile,Phone,Team"
    path = _write(tmp_path / "people.csv", f"{header}\n{','.join(_ZOE.values())},x,y\n")
    columns = {"MOBILE": "phone", "team": None}
    assert list(read_candidates(path, columns=columns)) == [_ZOE]
    row = {"first_name": "Zoë", "last_name": "O'Brien", "email": "zoe@example.com"}
    row |= {"mobile": "+12025550123", "phone": "x"}
    path = _write(tmp_path / "people.jsonl", json.dumps(row))
    assert list(read_candidates(path, columns=columns)) == [_ZOE]
    path = _write(tmp_path / "people.csv", f"{','.join(_FIELDS)}\n")
    with pytest.raises(ConfigurationError, match="no column 'Mobile'"):
        list(read_candidates(path, columns={"Mobile": "phone"}))
    for wrong in ({"Mobile": "telephone"}, {"A": "phone", "B": "phone"}, ["phone"]):
        with pytest.raises(ConfigurationError, match="columns"):
            read_candidates(path, columns=wrong)  # type: ignore[arg-type] # the point


def test_the_example_in_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session on the page about bulk invites gives what it shows."""
    page = Path(__file__).parents[2] / "docs" / "bulk-invites.md"
    (session,) = re.findall(r"```pycon\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(session, {}, "bulk-invites.md", None, 0)
    shown: list[str] = []
    assert doctest.DocTestRunner().run(test, out=shown.append).failed == 0, "".join(shown)


def test_rows_carry_the_line_they_begin_on(tmp_path: Path) -> None:
    """The line counts the header, blank lines and line breaks in cells; JSON Lines alike."""
    cells = ",".join(_ZOE.values())
    torn = cells.replace("Zoë", '"Z\no"')
    lines = ["", ",".join(_FIELDS), cells, "", f'"two\nlines"{cells[3:]}', torn, cells]
    rows = list(read_candidates(_write(tmp_path / "people.csv", "\n".join(lines))))
    assert [line_of(row) for row in rows] == [3, 5, 7, 9]
    text = f"{json.dumps(_ZOE)}\n\n[1]\n{json.dumps(_ZOE)}"
    rows = list(read_candidates(_write(tmp_path / "people.jsonl", text)))
    assert [line_of(row) for row in rows] == [1, 3, 4]
    assert line_of(_ZOE) is None


@example(count=3, strays=[(0, 34, '"'), (2, 38, '"')], has_notes=True)
@example(count=3, strays=[(0, 0, '"'), (2, 21, '"'), (2, 2, '"')], has_notes=False)
@given(
    count=st.integers(2, 8),
    strays=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 40), st.sampled_from(['"', '""', '\\"'])),
        min_size=1,
        max_size=4,
    ),
    has_notes=st.booleans(),
)
def test_stray_quotes_cost_their_own_line_alone(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    strays: list[tuple[int, int, str]],
    has_notes: bool,
) -> None:
    """With quotes put anywhere, each line is a row, and what is read is what was meant.

    Two quotes that make one note of several lines are the exception: what lies between may be
    rows that the note quotes, so that it is rejected, line by line, rather than invited.
    """
    note = ",note" if has_notes else ""
    lines = [f"P{n},L{n},p{n}@example.com,+1202555{n:04d}{note}" for n in range(count)]
    for number, position, quote in strays:
        if number < count:
            line = lines[number]
            lines[number] = line[:position] + quote + line[position:]
    path = tmp_path_factory.mktemp("csv") / "people.csv"
    path.write_text("\n".join([",".join(_FIELDS) + (",notes" if has_notes else ""), *lines]))
    check = RowCheck(policy=PhonePolicy.E164, region=None, needs_opt_in=False)
    read = {line_of(row): check.read(row) for row in read_candidates(path)}
    assert list(read) == [number + 2 for number in range(count)]
    hit = {number for number, *_ in strays}
    for number in range(count):
        found = read[number + 2]
        if isinstance(found, NewCandidate):
            plain = [value.replace('"', "").replace("\\", "") for value in values_of(found)]
            assert plain == [f"P{number}", f"L{number}", f"p{number}@example.com", found.phone]
            assert found.phone == f"+1202555{number:04d}"
        else:
            is_between = has_notes and min(hit) < number < max(hit)
            assert number in hit or is_between


def values_of(candidate: NewCandidate) -> tuple[str, str, str, str]:
    """Return the values that every candidate has."""
    return candidate.first_name, candidate.last_name, candidate.email, candidate.phone


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_lines_are_numbered_as_editors_do_whatever_they_end_in(tmp_path: Path, end: str) -> None:
    r"""A file that was converted twice ends its lines in \r\r\n, which is one end, not two."""
    rows = [",".join(_FIELDS), '"A\nB",Lee,a@example.com,+12025550123', ",".join(_ZOE.values())]
    path = tmp_path / "people.csv"
    path.write_bytes("\n".join(rows).replace("\n", end).encode())
    read = list(read_candidates(path))
    assert [line_of(row) for row in read] == [2, 4]
    assert read[1] == _ZOE


def test_the_mark_of_a_files_end_in_dos_is_no_person(tmp_path: Path) -> None:
    """It stands alone after the last line, or at the end of it."""
    for end in ("\n\x1a", "\x1a", "\r\n\x1a\x1a\r\n"):
        text = f"{','.join(_FIELDS)}\n{','.join(_ZOE.values())}{end}"
        assert list(read_candidates(_write(tmp_path / "people.csv", text))) == [_ZOE]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"PK\x05\x06", "ZIP"),
        (b"{\\rtf1\\ansi First Name", "RTF"),
        (b"7z\xbc\xaf\x27\x1c\x01", "7-Zip"),
        (b"Rar!\x1a\x07\x01", "RAR"),
        (b"\x04\x22\x4d\x18abc", "lz4"),
        (b"\xff\xd8\xff\xe0abc", "image"),
        (b"BEGIN:VCARD\nFN:A\n", "vCard"),
        (b"-----BEGIN PGP MESSAGE-----\n", "decrypt"),
        (b"", "empty"),
        (b" \n,,\n", "empty"),
        (b'{"first_name": "A"}\n', "JSON"),
        (b'[{"first_name": "A"}]\n', "JSON"),
    ],
)
def test_a_file_that_is_no_table_is_named_as_what_it_is(
    tmp_path: Path, start: bytes, message: str
) -> None:
    """The message says which kind it is, not that columns are missing."""
    path = tmp_path / "people.csv"
    path.write_bytes(start)
    with pytest.raises(ConfigurationError, match=message):
        list(read_candidates(path))
