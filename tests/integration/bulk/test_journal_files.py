"""Files that a running job holds open, and what the lock beside its journal is for."""

import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from gather_async import errors
from gather_async.bulk.journal import Journal, JournalScope

from .conftest import Bench, people


async def test_a_job_is_refused_where_anothers_last_changes_are(
    bench: Bench, tmp_path: Path
) -> None:
    """The -wal file beside a journal that was replaced belongs to the job that still runs."""
    journal, copy = tmp_path / "invites.db", tmp_path / "copy.db"
    first = bench.job(people(30), journal=journal)
    async for _ in first:
        shutil.copy(journal, copy)
        copy.replace(journal)
        with pytest.raises(errors.ConfigurationError, match="in use by another job"):
            await bench.job(people(30), journal=journal)
        break
    with pytest.raises(errors.ConfigurationError, match="removed, moved or replaced"):
        await first


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_a_journal_takes_five_descriptors(tmp_path: Path) -> None:
    """SQLite's three files, the lock beside the journal, and the one on its file."""
    paths = [tmp_path / f"{number}.db" for number in range(20)]
    scope = JournalScope(
        interview_id="i", server="s", invitation="", key_digest=bytes.hex, other_key=False
    )
    journals = [
        await Journal.open(each, scope, keeps_candidates=True, retry_failed=False, owner="o")
        for each in paths
    ]
    assert _open_files(tmp_path) == {
        f"{path}{suffix}": count
        for path in paths
        for suffix, count in (("", 2), ("-wal", 1), ("-shm", 1), (".lock", 1))
    }
    for journal in journals:
        await journal.aclose()
    assert not _open_files(tmp_path)


def _open_files(folder: Path) -> Counter[str]:
    """Return by how many descriptors this process has each file of a folder open."""
    names = list[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder is closed by now
            names.append(str(descriptor.readlink()))
    return Counter(name for name in names if name.startswith(str(folder)))
