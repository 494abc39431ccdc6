"""A folder of whole files, on a disk or on any filesystem that pyarrow or fsspec reaches."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from bitheads.engine.errors import StoreError
from bitheads.engine.files.filesystems import find_filesystem
from bitheads.engine.files.whole_file import make_folder, rename, sync
from bitheads.engine.store.lease import Lease, owner_of
from bitheads.engine.store.lock_objects import end_uploads, is_s3, lock_object

logger = logging.getLogger("bitheads")

ASIDE = ".partial"
OWN = (".part-", ".pairs-")
"""What files aside begin with: parts and their answers, and answers of pairs."""
LOCK = ".lock"
HOLDER = ".holder-"
"""What a file is called that is there while its holder has the lock. It is empty, as polars refuses
folders with files of another suffix that are not."""
OF_BUCKETS = (
    "Every part there is whole: see to the bucket, the network, and credentials that may read and "
    "write there (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), and run the same "
    "command again."
)


class Folder:
    """Files are written aside and appear under their names all at once, or not at all.

    Names that begin with a dot are the folder's own: other readers of Parquet pass them over.

    Attributes:
        holder: who has `lock`, another name each time; None without it, and where there are none.
    """

    def __init__(self, path: str | Path, filesystem: Any = None) -> None:
        """
        Args:
            path: a folder, or a URI such as s3://bucket/folder. It need not exist.
            filesystem: of pyarrow or fsspec, to which `path` belongs. None: `path` says it.

        Raises StoreError for a URI that nobody knows.
        """
        self.shown = str(path)
        self.filesystem, self.path = _resolve(str(path), filesystem)
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        self._lease: Lease | None = None
        self._under: str | None = None
        self._above: Folder | None = None
        self.holder: str | None = None

    def __str__(self) -> str:
        return self.shown

    def names(self, suffix: str) -> list[str]:
        """Names of the files that end so, sorted; none where the folder does not exist."""
        return [n for n in self._names() if n.endswith(suffix) and n[0] not in "._"]

    def _names(self) -> list[str]:
        with self._store_errors("cannot be listed"):
            found = self.filesystem.get_file_info(
                pafs.FileSelector(self.path, allow_not_found=True)
            )
            if not found:
                self._check_bucket()
            return sorted(file.base_name for file in found if file.type == pafs.FileType.File)

    def _check_bucket(self) -> None:
        """Raises OSError for a bucket that is not there: it is listed as an empty folder is."""
        bucket = self.path.partition("/")[0]
        if is_s3(self.filesystem):
            (info,) = self.filesystem.get_file_info([bucket])
            if info.type == pafs.FileType.NotFound:
                raise OSError(f"bucket {bucket!r} is not there")

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders in it that begin so, sorted."""
        with self._store_errors("cannot be listed"):
            found = self.filesystem.get_file_info(
                pafs.FileSelector(self.path, allow_not_found=True)
            )
        names = [each.base_name for each in found if each.type == pafs.FileType.Directory]
        return sorted(name for name in names if name.startswith(prefix))

    def below(self, name: str) -> Folder:
        """A folder in it, which need not exist. Whoever writes there has the lock of this one."""
        folder = Folder(f"{self.path}/{name}", self.filesystem)
        folder._above = self
        folder.shown = f"{self.shown.rstrip('/')}/{name}"
        return folder

    def open(self, name: str) -> pa.NativeFile:
        """Raises StoreError if it cannot be read."""
        with self._store_errors(f"{name} cannot be read"):
            return self.filesystem.open_input_file(self._at(name))

    def remove(self, name: str) -> None:
        """Raises StoreError if it is there and cannot be removed.

        A crash may bring it back: whoever writes next removes again what is void.
        """
        self.check_lease()
        with self._store_errors(f"{name} cannot be removed"), suppress(FileNotFoundError):
            self.filesystem.delete_file(self._at(name))

    def sync(self) -> None:
        """What was removed before does not come back, whatever crashes. Raises StoreError."""
        if self.is_local and Path(self.path).is_dir():
            with self._store_errors("cannot be brought to the disk"):
                sync(Path(self.path))

    def write_aside(self, name: str) -> Aside:
        """A new file; it is `name` once it is published. Raises StoreError."""
        self._make()
        return Aside(self, name)

    def _make(self) -> None:
        with self._store_errors("cannot be written to"):
            if self.is_local:
                make_folder(Path(self.path))
            else:
                self.filesystem.create_dir(self.path, recursive=True)

    def remove_leftovers(self) -> None:
        """What killed writers left aside. Nobody may be writing: hold `lock`."""
        # Where there are no locks nobody can say that nobody is writing.
        if not self.is_local and lock_object(self.filesystem, self._at(LOCK), str(self)) is None:
            return
        for name in self._names():
            if name.startswith(OWN) and name.endswith(ASIDE):  # not of other programs
                self.remove(name)
        if is_s3(self.filesystem):
            try:
                for prefix in OWN:
                    end_uploads(self.filesystem, self._at(prefix), str(self))
            except OSError as error:  # a right that a writer need not have otherwise
                logger.warning(
                    "%s: unfinished uploads of killed writers cannot be ended (%s)", self, error
                )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by whoever writes. A process that dies lets it go; on S3 it ends after a minute.
        Other object stores have none.

        Raises StoreError if another process holds it, or the filesystem has no locks: without one
        two writers could each store an id.
        """
        if not self.is_local:
            with self._leased():
                yield
            return
        self._make()
        with self._store_errors("cannot be written to"):
            descriptor = os.open(self._at(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self}: another process is writing there, expected one at a time. Wait for "
                    "it to end, or write to another folder."
                ) from None
            except OSError as error:
                raise StoreError(
                    f"{self}: cannot be locked ({error}), expected a filesystem with locks. Mount "
                    "it with them, or write to another folder and copy the files there."
                ) from error
            self.holder = secrets.token_hex(8)
            with self._store_errors("cannot be written to"):
                for name in self._names():
                    if name.startswith(HOLDER):
                        self._end_holder(name)
                Path(self._at(HOLDER + self.holder)).touch()
            yield
        finally:
            if self.holder is not None:
                with suppress(OSError):  # then the next one does
                    self._end_holder(HOLDER + self.holder)
            self.holder = None
            os.close(descriptor)

    def _end_holder(self, name: str) -> None:
        """Waits for who is publishing for it; nobody does from now on. Raises OSError."""
        with suppress(FileNotFoundError):
            holder = os.open(self._at(name), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(holder, fcntl.LOCK_EX)
                Path(self._at(name)).unlink()
            finally:
                os.close(holder)

    @contextmanager
    def _leased(self) -> Iterator[None]:
        found = lock_object(self.filesystem, self._at(LOCK), str(self))
        if found is None:
            yield
            return
        lease = Lease(found, str(self))
        lease.take()
        try:
            self._lease, self.holder = lease, lease.owner
            yield
        finally:
            self._lease = self.holder = None
            lease.let_go()

    def publish_for(self, holder: str | None) -> None:
        """Files get their names only while this one has the lock: the process that had it may have
        died, and another one have begun since. None: whoever calls has it, or nobody can.
        """
        self._under = holder

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Goes around what gives a file its name.

        Nobody takes the lock meanwhile, but on object stores, where it is looked at before.
        Raises StoreError if another process may be writing.
        """
        self.check_lease()
        if self._above is not None:
            with self._above.publishing():
                yield
            return
        if self._under is None:
            yield
            return
        if not self.is_local:
            found = lock_object(self.filesystem, self._at(LOCK), str(self))
            there = None if found is None else found.read()
            if there is None or owner_of(there[0]) != self._under:
                raise self._is_over()
            yield
            return
        path = self._at(HOLDER + self._under)
        with self._store_errors("cannot be written to"):
            try:
                holder = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                raise self._is_over() from None
        try:
            with self._store_errors("cannot be written to"):
                fcntl.flock(holder, fcntl.LOCK_SH)
                if not Path(path).exists():
                    raise self._is_over()
            yield
        finally:
            os.close(holder)

    def _is_over(self) -> StoreError:
        return StoreError(
            f"{self}: the run that this is a part of is over, and another may have begun. Every "
            "part there is whole: run the same command again."
        )

    def check_lease(self) -> None:
        """Raises StoreError if another process may be writing, though this one had `lock`."""
        if self._lease is not None:
            self._lease.check()
        if self._above is not None:
            self._above.check_lease()

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    @contextmanager
    def _store_errors(self, what: str) -> Iterator[None]:
        """What a filesystem raises, as StoreError."""
        try:
            yield
        except OSError as error:
            advice = OF_BUCKETS if is_s3(self.filesystem) else _advice(error)
            raise StoreError(f"{self}: {what} ({error}). {advice}") from error


class Aside:
    """A file that is being written under a name of its own.

    Attributes:
        file: to write to, within `writing`.
        name: which it gets.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.name = name
        self._folder = folder
        self._aside = f".{name}.{os.getpid()}-{secrets.token_hex(4)}{ASIDE}"
        self._is_open = True
        path = folder._at(self._aside)
        with folder._store_errors("cannot be written to"):
            self.file: BinaryIO = (
                Path(path).open("wb")  # noqa: SIM115 (closed by publish or discard)
                if folder.is_local
                else folder.filesystem.open_output_stream(path)
            )

    def publish(self) -> None:
        """Flushes the file to disk and gives it its name, in the place of another of that name.

        Raises StoreError, and then there is nothing of it.
        """
        folder = self._folder
        try:
            with folder._store_errors(f"{self.name} cannot be written"):
                self.file.flush()
                if folder.is_local:
                    os.fsync(self.file.fileno())
                self.file.close()
                with folder.publishing():
                    if folder.is_local:
                        rename(Path(folder._at(self._aside)), Path(folder._at(self.name)))
                    else:
                        folder.filesystem.move(folder._at(self._aside), folder._at(self.name))
            self._is_open = False
        finally:
            self.discard()

    def discard(self) -> None:
        """Leaves nothing of a file that was not published."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._folder.filesystem.delete_file(self._folder._at(self._aside))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Goes around what writes to `file`: whatever goes wrong, the file is discarded.

        Raises StoreError for what `file` raised.
        """
        try:
            with self._folder._store_errors(f"{self.name} cannot be written"):
                yield
        except BaseException:
            self.discard()
            raise


def _resolve(path: str, filesystem: Any) -> tuple[pafs.FileSystem, str]:
    if filesystem is not None:
        if not isinstance(filesystem, pafs.FileSystem):
            filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
        return filesystem, path.rstrip("/")
    try:
        return find_filesystem(path)
    except ValueError as error:
        raise StoreError(
            f"{path}: cannot be reached, {error}. Expected a folder, or a URI such as "
            "s3://bucket/folder."
        ) from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Every part there is whole: make room, and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Expected a folder that may be written to: change its rights, or choose another."
    return "Every part there is whole: mend the cause, and run the same command again."
