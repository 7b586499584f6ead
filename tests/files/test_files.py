"""Files and folders that are there whole or not at all, whoever else writes beside them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankseg._files import whole as _files
from rankseg._files.whole import (
    reserve,
    sweep,
    write_folder_whole,
    write_new,
    write_whole,
)


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def fill_with(text):
    def fill(place):
        place.mkdir()
        for name in "ab":
            (place / name).write_text(text)

    return fill


@contextlib.contextmanager
def files_of_at_most(size):
    """Let the system refuse larger files, as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_replaces_what_is_there(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"one")
    inode = path.stat().st_ino
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != inode
    assert names_in(tmp_path) == ["a"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "a", b"old")
    with files_of_at_most(4096), pytest.raises(OSError, match="too large"):
        write_whole(tmp_path / "a", bytes(8192))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


def test_content_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync") or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replace") or replace(*paths))
    write_whole(tmp_path / "a", b"x")
    write_folder_whole(tmp_path / "b", fill_with("x"))
    assert done == ["fsync", "replace", "fsync", "fsync", "replace"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
        write_folder_whole(tmp_path / "b", fill_with(""))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


@pytest.mark.parametrize("name", ["n" * 255, os.fsdecode(b"\xff\xfe"), "[red] 'x'\n"])
def test_any_name_that_the_file_system_takes(tmp_path, name):
    write_whole(tmp_path / name, b"x")
    assert names_in(tmp_path) == [name]
    (tmp_path / name).unlink()
    for text in "xy":
        write_folder_whole(tmp_path / name, fill_with(text))
        assert (tmp_path / name / "a").read_text() == text
    assert names_in(tmp_path) == [name]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "other").write_bytes(b"stays")
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "nowhere").symlink_to("missing")
    for name in ("link", "nowhere"):
        write_whole(tmp_path / name, b"x")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "other").read_bytes() == b"stays"
    assert names_in(tmp_path) == ["link", "nowhere", "other"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "to folder").symlink_to("folder")
    write_folder_whole(tmp_path / "to folder", fill_with("x"))
    assert names_in(tmp_path / "folder") == []


def test_a_planted_link_of_the_hidden_name_is_not_followed(tmp_path, monkeypatch):
    numbers = iter(["0" * 16, "1" * 16, "0" * 16, "2" * 16])
    monkeypatch.setattr(_files.secrets, "token_hex", lambda size: next(numbers))
    planted = tmp_path / f".rankseg-{_files._machine()}-{'0' * 16}.part"
    planted.symlink_to(tmp_path / "other")
    write_whole(tmp_path / "a", b"x")
    write_folder_whole(tmp_path / "b", fill_with("x"))
    assert names_in(tmp_path) == [planted.name, "a", "b"]


def test_folders_and_devices_are_not_replaced_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name, words in (("folder", "Is a directory"), ("pipe", "device"), ("null", "device")):
        with pytest.raises(OSError, match=words):
            write_whole(tmp_path / name, b"x")
    assert names_in(tmp_path) == ["folder", "null", "pipe"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "a", b"x")


def test_many_writers_of_one_file_and_of_many(tmp_path):
    contents = [bytes([65 + number]) * 300_000 for number in range(6)]
    stop, seen = threading.Event(), set()

    def look():
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add((tmp_path / "same").read_bytes())

    def write(number):
        for turn in range(10):
            write_whole(tmp_path / "same", contents[number])
            write_folder_whole(tmp_path / "folder", fill_with(str(number)))
            write_whole(tmp_path / f"{number}-{turn}", contents[number])

    reader = threading.Thread(target=look)
    reader.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
    finally:
        stop.set()
        reader.join()
    assert seen
    assert seen <= set(contents)
    assert len(names_in(tmp_path)) == 62
    assert len({(tmp_path / "folder" / name).read_text() for name in "ab"}) == 1


def test_of_many_that_create_a_file_one_does(tmp_path):
    meet = threading.Barrier(8, timeout=60)

    def create(number):
        meet.wait()
        try:
            write_new(tmp_path / "a", b"x" * (1 + number))
        except FileExistsError:
            return None
        return 1 + number

    for _ in range(20):
        (tmp_path / "a").unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            (size,) = filter(None, pool.map(create, range(8)))
        assert (tmp_path / "a").stat().st_size == size
    assert names_in(tmp_path) == ["a"]


def test_creating_a_file_without_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    write_new(tmp_path / "a", b"x")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_an_interrupt_between_two_steps_keeps_the_old_folder(tmp_path, monkeypatch):
    write_folder_whole(tmp_path / "a", fill_with("old"))
    replace = os.replace

    def interrupt(source, target):
        if source.name == _files.NEW:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_folder_whole(tmp_path / "a", fill_with("new"))
    assert (tmp_path / "a" / "b").read_text() == "old"
    assert names_in(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rankseg._files import whole as _files

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

folder, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "file":
    os.fsync = die
    _files.write_whole(folder / "a", b"new")
replace = os.replace
os.replace = lambda source, target: die() if source.name == _files.NEW else replace(source, target)
_files.write_folder_whole(folder / "a", lambda place: (place.mkdir(), (place / "a").touch()))
"""


def kill_a_writer(folder, kind):
    process = subprocess.run([sys.executable, "-c", KILLED, folder, kind], check=False)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed(tmp_path, kind):
    if kind == "file":
        write_whole(tmp_path / "a", b"old")
    else:
        write_folder_whole(tmp_path / "a", fill_with("old"))
    kill_a_writer(tmp_path, kind)
    (part,) = (name for name in names_in(tmp_path) if name.startswith("."))
    assert _files.PART.fullmatch(part)
    sweep(tmp_path)
    assert names_in(tmp_path) == ["a"]
    if kind == "file":
        assert (tmp_path / "a").read_bytes() == b"old"
    else:  # it was moved away
        assert (tmp_path / "a" / "b").read_text() == "old"


def test_a_process_sweeps_before_its_first_result(tmp_path):
    kill_a_writer(tmp_path, "file")
    write_whole(tmp_path / "b", b"x")
    assert names_in(tmp_path) == ["b"]


def test_what_a_live_writer_writes_is_not_removed(tmp_path):
    with _files._part_file(tmp_path / "a", b"x") as part, _files._part_folder(tmp_path / "b") as b:
        for path in (part, b):
            os.utime(path, (0, 0))
        sweep(tmp_path)
        assert part.exists()
        assert b.exists()
    assert names_in(tmp_path) == []


def test_what_is_not_surely_left_over_stays(tmp_path):
    here, number = _files._machine(), "0123456789abcdef"
    other = "f" * 8 if here != "f" * 8 else "0" * 8
    kept = [".a.npy.123.part", ".rankseg.part", f".rankseg-{here}-{number}.party", "a.part"]
    for name in (*kept, f".rankseg-{other}-{number}.part"):
        (tmp_path / name).touch()
    kept += [f".rankseg-{here}-{digit * 16}.part" for digit in "ab"]
    (tmp_path / kept[-2]).symlink_to("a.part")
    os.mkfifo(tmp_path / kept[-1])
    sweep(tmp_path)
    assert names_in(tmp_path) == sorted([*kept, f".rankseg-{other}-{number}.part"])
    for name in names_in(tmp_path):
        os.utime(tmp_path / name, (time.time() - 2 * _files.DAY,) * 2, follow_symlinks=False)
    sweep(tmp_path)
    assert names_in(tmp_path) == sorted(kept)
    sweep(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["none", "refused"])
def test_without_locks_age_decides(tmp_path, monkeypatch, kind):
    def refuse(*arguments):
        raise OSError("no locks")

    if kind == "none":
        monkeypatch.setattr(_files, "fcntl", None)
    else:
        monkeypatch.setattr(_files.fcntl, "flock", refuse)
    write_whole(tmp_path / "a", b"x")
    write_folder_whole(tmp_path / "b", fill_with("x"))
    part = tmp_path / f".rankseg-{_files._machine()}-0123456789abcdef.part"
    part.touch()
    sweep(tmp_path)
    assert part.exists()
    os.utime(part, (0, 0))
    sweep(tmp_path)
    assert names_in(tmp_path) == ["a", "b"]


def test_a_part_that_a_sweep_took_is_made_anew(tmp_path, monkeypatch):
    lock, taken = _files._lock, []

    def sweep_first(descriptor, wait):
        if wait and not taken:
            taken.extend(names_in(tmp_path))
            sweep(tmp_path)
        lock(descriptor, wait)

    monkeypatch.setattr(_files, "_lock", sweep_first)
    write_whole(tmp_path / "a", b"x")
    assert len(taken) == 1
    assert names_in(tmp_path) == ["a"]


def test_a_part_folder_that_a_sweep_took_is_made_anew(tmp_path, monkeypatch):
    open_file, taken = os.open, []

    def sweep_first(path, flags, *mode, **more):
        if not taken and Path(path).is_dir():
            taken.extend(names_in(tmp_path))
            sweep(tmp_path)
        return open_file(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", sweep_first)
    write_folder_whole(tmp_path / "a", fill_with("x"))
    assert len(taken) == 1
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize("allocates", [True, False])
def test_room_is_reserved_or_refused(tmp_path, monkeypatch, allocates):
    if not allocates:
        monkeypatch.delattr(os, "posix_fallocate")
    size = 3 << 20
    with (tmp_path / "a").open("w+b") as file:
        reserve(file, size)
        assert os.fstat(file.fileno()).st_blocks * 512 >= size
        assert os.fstat(file.fileno()).st_size == size
    with (
        (tmp_path / "b").open("w+b", buffering=0) as file,
        files_of_at_most(1 << 20),
        pytest.raises(OSError, match="too large"),
    ):
        reserve(file, size)


def test_results_are_written_by_these_functions_alone():
    written = re.compile(r"\.write_(text|bytes)\(|\bopen\([^)\n]*[\"'][wax]b?[\"']")
    for module in Path(_files.__file__).parents[1].rglob("*.py"):
        if module != Path(_files.__file__):
            assert not written.search(module.read_text()), module
