"""Files and folders that are there whole or not at all.

A result is written under a hidden name in its folder, flushed to disk, and then renamed. The hidden
name is random, so that threads, containers and machines never share one. It is created exclusively,
so that a link of that name is never followed. Its length does not depend on the name of the result.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "identify",
    "locked",
    "reserve",
    "sweep",
    "write_folder_whole",
    "write_new",
    "write_whole",
]

PART: Final = re.compile(r"\.rankseg-[0-9a-f]{8}-[0-9a-f]{16}\.part")
"""Names of unfinished results: the machine that writes them, and a random number."""

DAY: Final = 24 * 60 * 60  # seconds
ZEROS: Final = 1 << 20  # bytes written at a time
TRIES: Final = 100  # of two writers of one folder, each may move the result of the other away

NEW, OLD = "new", "old"
"""Subfolders of an unfinished result: the new content, and the old content that it replaces."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that replaces what is at ``path``: readers see the old or the new one.

    A link at ``path`` is replaced itself; the file that it names stays as it is.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to, or ``path`` is a folder or a device;
        what was at ``path`` stays.
    """
    _refuse_special(path)
    with _part_file(path, content) as part:
        os.replace(part, path)


def write_new(path: Path, content: bytes) -> None:
    """Write a file where there is none; of several writers at a time, one succeeds.

    Raises
    ------
    FileExistsError
        If there is something at ``path``; it stays.
    OSError
        As `write_whole`.
    """
    with _part_file(path, content) as part:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # file systems without hard links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            os.replace(part, path)


def write_folder_whole(path: Path, fill: Callable[[Path], object]) -> None:
    """Let a folder be filled beside its place, then move it there.

    A folder cannot be replaced in one step: what was at ``path`` is moved away first, and back if
    the new folder cannot take its place. If the process is killed between these steps, `sweep`
    moves the old folder back.

    Raises
    ------
    OSError
        As `write_whole`, and whatever ``fill`` raises; what was at ``path`` stays.
    """
    with _part_folder(path) as part:
        fill(part / NEW)
        _flush_folder(part / NEW)
        for _ in range(TRIES):
            _move_away(path, part / OLD)
            try:
                os.replace(part / NEW, path)
                shutil.rmtree(part / OLD, ignore_errors=True)  # another may move the new one away
                return
            except OSError as error:  # another writer was faster
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
        raise OSError(errno.EBUSY, "others write there all the time", str(path))


def reserve(file: IO[bytes], size: int) -> None:
    """Make an empty file of ``size`` bytes for which there is room on disk.

    A file that is only said to be so long has no room yet: if the disk is full when it is mapped
    into memory and written to, the system ends the process.

    Raises
    ------
    OSError
        If there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    for start in range(0, size, ZEROS):  # macOS, and file systems that cannot reserve
        file.write(bytes(min(ZEROS, size - start)))
    file.flush()


def identify(path: str | os.PathLike[str]) -> list[Any]:
    """Return the path without links, the size in bytes and the date of a file.

    For a folder, size and date are sums over all files and folders in it. They are None if they
    cannot be read.
    """
    real = os.path.realpath(path)
    try:
        found = [os.stat(real)]
        for place, _, names in os.walk(real):
            found += [os.stat(os.path.join(place, name)) for name in names]
    except OSError:
        return [real, None, None]
    return [real, sum(one.st_size for one in found), sum(one.st_mtime_ns for one in found)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let other threads and processes wait that lock this folder, where the system has locks."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            with contextlib.suppress(OSError):  # locks that do not work
                _lock(descriptor, wait=True)
        yield


def sweep(folder: Path) -> None:
    """Remove what runs that were killed left unfinished in a folder.

    An unfinished result is removed if this machine made it and no process holds its lock, or if
    it is older than a day.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if PART.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # removed meanwhile, or not ours to remove
                    _remove_if_abandoned(Path(entry.path))


@contextlib.contextmanager
def _part_file(path: Path, content: bytes) -> Iterator[Path]:
    """Write an unfinished file to disk; whoever enters moves it to its place."""
    _sweep_once(os.path.abspath(path.parent))
    part, descriptor = _locked_part(path.parent, _create)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows moves no open file
            yield part  # the lock is held until the file is closed
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _part_folder(path: Path) -> Iterator[Path]:
    """Make an unfinished folder, and remove it with all that is left in it."""
    _sweep_once(os.path.abspath(path.parent))
    part, descriptor = _locked_part(path.parent, _create_folder)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            _remove(part)
        if descriptor >= 0:
            os.close(descriptor)


def _locked_part(folder: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """Create an unfinished file or folder and lock it; return the descriptor, or -1 if none is."""
    while True:
        part = folder / f".rankseg-{_machine()}-{secrets.token_hex(8)}.part"
        try:
            descriptor = create(part)
        except FileExistsError:
            continue
        if descriptor < 0:
            return part, descriptor
        with contextlib.suppress(OSError):  # locks that do not work
            _lock(descriptor, wait=True)
        # A sweep may have locked and removed it since it was created.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(part)):
                return part, descriptor
        os.close(descriptor)


def _create(part: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(part, flags, 0o666)  # less the umask, as for any new file


def _create_folder(part: Path) -> int:
    part.mkdir()
    if fcntl is None:
        return -1
    try:
        return os.open(part, os.O_RDONLY)
    except FileNotFoundError as error:  # a sweep was faster: take another name
        raise FileExistsError from error


def _lock(descriptor: int, wait: bool) -> None:
    """Lock a file until it is closed, or its process ends.

    Raises
    ------
    BlockingIOError
        If another process holds the lock and ``wait`` is False.
    OSError
        If the system or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@functools.lru_cache(1)
def _machine() -> str:
    """Return a number of the running system, within which every process sees every lock."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = str(uuid.getnode())
    return uuid.uuid5(uuid.NAMESPACE_OID, boot).hex[:8]


@functools.lru_cache(None)
def _sweep_once(folder: str) -> None:
    """Sweep a folder before the first result that this process writes there."""
    sweep(Path(folder))


def _remove_if_abandoned(part: Path) -> None:
    known = os.lstat(part)
    if not (stat.S_ISREG(known.st_mode) or stat.S_ISDIR(known.st_mode)):
        return
    is_old = time.time() - known.st_mtime > DAY
    if fcntl is None:
        if is_old:
            _remove(part)
        return
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            _lock(descriptor, wait=False)
            is_free = part.name.startswith(f".rankseg-{_machine()}-")
        except BlockingIOError:
            return
        except OSError:  # locks that do not work
            is_free = False
        if is_free or is_old:
            _remove(part)
    finally:
        os.close(descriptor)


def _remove(part: Path) -> None:
    """Remove an unfinished result; a folder that was moved away for it goes back."""
    if not part.is_dir():
        part.unlink()
        return
    with contextlib.suppress(FileNotFoundError):
        for old in list((part / OLD).iterdir()):
            try:
                if not os.path.lexists(part.parent / old.name):
                    os.replace(old, part.parent / old.name)
            except OSError:
                if not os.path.lexists(part.parent / old.name):
                    raise  # it stays here; else another writer was faster
    shutil.rmtree(part, ignore_errors=True)


def _move_away(path: Path, place: Path) -> None:
    """Move what is at ``path`` into another folder, where nothing but the latest is kept."""
    if os.path.lexists(path):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another writer moved it
            os.replace(path, place / path.name)


def _flush_folder(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(place, name), os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a file would replace a device or a pipe", str(path))
