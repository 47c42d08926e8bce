"""Entries on disk: whole or absent, bounded, and never trusted without their hash."""

import os
import subprocess
import sys
import time

import pytest

from hios.entry_store import CacheWarning, EntryStore


@pytest.fixture
def store(tmp_path):
    return EntryStore(tmp_path / "store", 1000)


def test_an_entry_comes_back_as_it_was(store):
    assert store.get("a.o") is None
    store.put("a.o", b"one", b"", memoryview(b"two"))
    assert bytes(store.get("a.o")) == b"onetwo"
    store.put("a.o", b"three")
    assert bytes(store.get("a.o")) == b"three"
    assert store.usage().entries == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty", "other"])
def test_a_damaged_entry_is_told_about_and_removed(store, damage):
    store.put("a.o", b"content")
    path = store.folder / "a.o"
    data = path.read_bytes()
    path.write_bytes(
        {
            "flip": data[:-1] + b"T",
            "truncate": data[:-2],
            "extend": data + b"!",
            "empty": b"",
            "other": b"content",
        }[damage]
    )
    with pytest.warns(CacheWarning, match=r"a\.o is damaged; it is removed and made again"):
        assert store.get("a.o") is None
    assert not path.exists()


def test_the_least_recently_used_leave_first(store):
    for index in range(6):
        store.put(f"{index}.o", bytes(100))
        os.utime(store.folder / f"{index}.o", (index, index))
    store.get("0.o")
    store.trim()
    left = sorted(path.name for path in store.folder.iterdir())
    assert left == ["0.o", "3.o", "4.o", "5.o"] or left == ["0.o", "4.o", "5.o"]
    assert store.usage().size_bytes <= 1000


def test_a_store_below_its_limit_stays(store):
    store.put("a.o", b"x")
    store.trim()
    assert store.usage().entries == 1


KILLED = """
import os, sys
from pathlib import Path
from hios.entry_store import EntryStore

Path.replace = lambda self, target: os.kill(os.getpid(), 9)
EntryStore(Path(sys.argv[1]), 1000).put("a.o", b"never renamed")
"""


def test_a_killed_writer_leaves_no_entry_and_its_file_goes_later(store):
    store.put("b.o", b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.folder)], check=False)
    assert done.returncode == -9
    left = [path for path in store.folder.iterdir() if path.name.startswith(".")]
    assert len(left) == 1
    assert store.get("a.o") is None
    assert store.usage().entries == 1
    store.trim()
    assert left[0].exists()  # it could belong to a living writer
    past = time.time() - 7200
    os.utime(left[0], (past, past))
    store.put("c.o", b"new")
    store.trim()
    assert not left[0].exists()
    assert bytes(store.get("b.o")) == b"old"


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = EntryStore(tmp_path / "file" / "store", 1000)
    with pytest.warns(CacheWarning, match="cannot be written") as caught:
        store.put("a.o", b"x")
    assert len(caught) == 1
    store.put("b.o", b"x")
    assert store.get("a.o") is None
    assert store.usage().entries == 0
