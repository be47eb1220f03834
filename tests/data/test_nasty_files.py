"""Every row of every nasty file has the outcome that is written beside it."""

from pathlib import Path

import pytest

from gather_async.bulk import read_candidates
from gather_async.bulk.row_check import RowCheck, line_of
from gather_async.errors import ConfigurationError, GatherError
from gather_async.models.candidate import NewCandidate
from gather_async.phone import PhonePolicy

from .nasty_files import FILES, Good, Nasty, nasty_files

NASTY = nasty_files()


def test_the_files_are_what_the_code_makes() -> None:
    """Each file is there, byte for byte, and no other; none stands twice."""
    made = {f"{each.name}{each.suffix}": each.data for each in NASTY}
    assert len(made) == len(NASTY) >= 60
    assert {path.name: path.read_bytes() for path in FILES.iterdir()} == made


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: nasty.name)
def test_every_row_has_its_outcome(nasty: Nasty) -> None:
    """The file's rows are read right or rejected, or the file is refused as what it is."""
    file = read_candidates(path_of(nasty), encoding=nasty.encoding, columns=nasty.columns)
    if nasty.error is not None:
        with pytest.raises(ConfigurationError) as caught:
            list(file)
        assert nasty.error in str(caught.value)
        return
    check = RowCheck(policy=PhonePolicy.E164, region=nasty.region, needs_opt_in=False)
    read = {line_of(row): check.read(row) for row in file}
    assert list(read) == list(nasty.rows)
    for line, expected in nasty.rows.items():
        found = read[line]
        if isinstance(expected, str):
            assert isinstance(found, GatherError), (line, found)
            assert expected in str(found)
        else:
            assert isinstance(found, NewCandidate), (line, found)
            assert values_of(found) == expected
    assert file.count() == len(nasty.rows)


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: nasty.name)
def test_what_is_said_shows_no_person(nasty: Nasty) -> None:
    """Neither reasons nor the description of the file repeat what the rows hold."""
    file = read_candidates(path_of(nasty), encoding=nasty.encoding, columns=nasty.columns)
    check = RowCheck(policy=PhonePolicy.E164, region=nasty.region, needs_opt_in=False)
    said: list[str] = []
    try:
        said = [str(outcome) for row in file if isinstance(outcome := check.read(row), GatherError)]
    except ConfigurationError as error:
        said.append(str(error))
    said.append(str(file.description))
    for words in said:
        assert not any(secret in words for secret in ("Zoë", "Müller", "example.com", "55500"))


def path_of(nasty: Nasty) -> Path:
    """Return where the file is."""
    return FILES / f"{nasty.name}{nasty.suffix}"


def values_of(candidate: NewCandidate) -> Good:
    """Return a candidate as the corpus writes it."""
    return (
        candidate.first_name,
        candidate.last_name,
        candidate.email,
        candidate.phone,
        candidate.external_id,
    )
