"""Files of records: nothing is lost but the line that was being written, nothing is hidden."""

import gzip
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from synthetic_groups import records

from cost_model.records import encode_record
from cost_model.store import RecordStore, read_records
from hios.errors import InvalidRecord, MissingFile, StorageError

RECORDS = records(8)
SUFFIXES = ("jsonl", "jsonl.gz")


def write(path, some):
    with RecordStore(path) as store:
        for record in some:
            store.append(record)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_appended_is_read_in_order(tmp_path, suffix):
    path = tmp_path / f"g.{suffix}"
    write(path, RECORDS[:3])
    write(path, RECORDS[3:])
    found = read_records(path)
    assert list(found.records) == RECORDS
    assert found.damaged == ()
    assert found.report() == ""
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # the lock is gone


def test_other_programs_can_read_the_compressed_file(tmp_path):
    path = tmp_path / "g.jsonl.gz"
    write(path, RECORDS[:3])
    write(path, RECORDS[3:])
    assert gzip.decompress(path.read_bytes()) == b"".join(map(encode_record, RECORDS))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_opening_without_writing_changes_nothing(tmp_path, suffix):
    path = tmp_path / f"g.{suffix}"
    write(path, RECORDS[:3])
    before = path.read_bytes()
    with RecordStore(path) as store:
        assert list(store.found.records) == RECORDS[:3]
    assert path.read_bytes() == before


def test_damaged_lines_are_told_by_number_and_left_out(tmp_path):
    path = tmp_path / "g.jsonl"
    lines = [encode_record(record) for record in RECORDS]
    lines[2] = b"{not json}\n"
    lines[5] = lines[5].replace(b'"valid":true', b'"valid":false')
    lines[6] = b"\xff\xfe\n"
    path.write_bytes(b"".join(lines))
    found = read_records(path)
    assert [damage.line for damage in found.damaged] == [3, 6, 7]
    assert not any(damage.is_torn for damage in found.damaged)
    assert list(found.records) == [r for i, r in enumerate(RECORDS) if i not in (2, 5, 6)]
    assert "lines 3, 6, 7" in found.report()
    assert "no reason" in found.damaged[1].reason
    write(path, [])  # a writer leaves them as they are
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_half_a_line_is_removed_by_the_next_writer(tmp_path, cut):
    path = tmp_path / "g.jsonl"
    whole = b"".join(map(encode_record, RECORDS[:2]))
    path.write_bytes(whole + encode_record(RECORDS[2])[: -1 if cut == -1 else cut])
    found = read_records(path)
    with RecordStore(path) as store:
        assert store.found == found
        store.append(RECORDS[3])
    after = read_records(path)
    assert after.damaged == ()
    if cut == -1:  # only the end of the line was missing
        assert found.damaged == ()
        assert list(after.records) == RECORDS[:4]
    else:
        assert [(damage.line, damage.is_torn) for damage in found.damaged] == [(3, True)]
        assert "half a line" in found.report()
        assert list(after.records) == [*RECORDS[:2], RECORDS[3]]


def test_a_compressed_file_that_ends_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "g.jsonl.gz"
    sizes = [0]
    with RecordStore(path) as store:
        for record in RECORDS:
            store.append(record)
            sizes.append(path.stat().st_size)
    data = path.read_bytes()
    for end in range(1, len(data), 37):
        path.write_bytes(data[:end])
        whole = sum(size <= end for size in sizes[1:])
        found = read_records(path)
        assert len(found.records) >= whole
        assert list(found.records) == RECORDS[: len(found.records)]
        assert found.damaged
        assert found.damaged[-1].is_torn
        with RecordStore(path) as store:
            store.append(RECORDS[-1])
        after = read_records(path)
        assert after.damaged == ()
        assert list(after.records) == [*found.records, RECORDS[-1]]
        gzip.decompress(path.read_bytes())


def test_damage_inside_a_compressed_file_spares_other_members(tmp_path):
    path = tmp_path / "g.jsonl.gz"
    write(path, RECORDS[:4])
    first = path.stat().st_size
    write(path, RECORDS[4:])
    data = bytearray(path.read_bytes())
    data[first // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    found = read_records(path)
    assert found.damaged
    assert list(found.records[-4:]) == RECORDS[4:]


def test_a_record_that_contradicts_itself_is_not_written(tmp_path):
    path = tmp_path / "g.jsonl"
    with RecordStore(path) as store, pytest.raises(InvalidRecord, match="no reason"):
        store.append(replace(RECORDS[0], valid=False))
    assert path.read_bytes() == b""


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    path = tmp_path / "g.jsonl"
    with RecordStore(path) as store:
        store.append(RECORDS[0])
        with pytest.raises(StorageError, match=f"process {os.getpid()} on .* since"):
            RecordStore(path)
        store.append(RECORDS[1])
    write(path, RECORDS[2:3])
    assert len(read_records(path).records) == 3


WRITER = textwrap.dedent("""
    import sys, time
    from synthetic_groups import records
    from cost_model.store import RecordStore
    with RecordStore(sys.argv[1]) as store:
        for number, record in enumerate(records(400)):
            store.append(record)
            print(number + 1, flush=True)
""")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_writer_loses_nothing_that_it_had_written(tmp_path, suffix):
    path = tmp_path / f"g.{suffix}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment
    )
    with writer:
        for _ in range(25):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        told = 25 + len(writer.stdout.read().splitlines())
    found = read_records(path)
    assert told <= len(found.records) <= told + 1
    assert [r.group_id for r in found.records] == [
        r.group_id for r in records(400)[: len(found.records)]
    ]
    with RecordStore(path) as store:  # the lock of the dead holds nobody up
        assert store.found.records == found.records
        store.append(RECORDS[0])
    after = read_records(path)
    assert after.damaged == ()
    assert len(after.records) == len(found.records) + 1


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(StorageError, match="cannot write"):
        RecordStore(tmp_path / "no" / "folder.jsonl")
