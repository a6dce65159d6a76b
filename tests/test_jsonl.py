from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from cutline.errors import DataError
from cutline.jsonl import RecordFile, finite, read_records

RECORDS = [{"n": 1}, {"text": "é\n"}, [3]]


def test_a_file_cut_anywhere_is_continued_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordFile(path) as file:
        for record in RECORDS:
            file.append(record)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = list(read_records(path))
        assert [record for _, record in found] == RECORDS[: len(found)]
        with RecordFile(path, keep_bytes=found[-1][0] if found else 0, synced=True) as file:
            for record in RECORDS[len(found) :]:
                file.append(record)
        assert path.read_bytes() == whole


def test_an_absent_file_has_no_records_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none")) == []
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no regular file"):
        list(read_records(tmp_path / "pipe"))


@pytest.mark.parametrize("line", ["{", "[" * 100_000, "\xff"])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match="line 2: got no JSON"):
        list(read_records(path))


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_record_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "records.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RecordFile(path) as file:
        file.append("small")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
        try:
            with pytest.raises(OSError, match=r".") as caught:
                file.append("x" * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b'"small"\n'


def test_numbers_that_json_lacks_are_none() -> None:
    assert [finite(value) for value in (0.12345, float("nan"), float("-inf"))] == [
        0.1235,
        None,
        None,
    ]
