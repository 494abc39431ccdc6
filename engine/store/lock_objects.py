"""Objects that are made, changed and removed under a condition, by filesystem."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pyarrow.fs as pafs

from bitheads.engine.errors import StoreError
from bitheads.engine.process.install import how_to_install

Result = TypeVar("Result")


class LockChanged(Exception):
    """The object is not what the condition says."""


class LockObject(Protocol):
    """One object. All methods raise StoreError where the filesystem fails."""

    def create(self, data: bytes) -> str:
        """Makes it; returns its tag. Raises LockChanged if it is there."""

    def read(self) -> tuple[bytes, str] | None:
        """What is in it, and its tag; None if it is not there."""

    def replace(self, data: bytes, tag: str) -> str:
        """Changes it; returns its tag. Raises LockChanged if it has not this tag."""

    def remove(self, tag: str) -> None:
        """Raises LockChanged if it has not this tag."""

    def is_exclusive(self) -> bool:
        """Whether an object that is there cannot be made; it is there, and stays as it is if so."""


def lock_object(filesystem: pafs.FileSystem, path: str, shown: str) -> LockObject | None:
    """The object at a path; None for filesystems of which nobody knows how they put conditionally.

    Raises StoreError for S3 without s3fs.
    """
    if is_s3(filesystem):
        return S3Object(_s3fs_of(filesystem, shown), path, shown)
    inner = _of_fsspec(filesystem)
    return MemoryObject(path) if getattr(inner, "protocol", None) == "memory" else None


def is_s3(filesystem: pafs.FileSystem) -> bool:
    """Whether it is pyarrow's of S3, or s3fs."""
    if isinstance(filesystem, getattr(pafs, "S3FileSystem", ())):
        return True
    return "s3" in getattr(_of_fsspec(filesystem), "protocol", ())


def end_uploads(filesystem: pafs.FileSystem, prefix: str, shown: str) -> None:
    """Ends uploads of several pieces that killed writers began, which a bucket keeps unseen.

    Raises OSError, and StoreError for S3 without s3fs.
    """
    s3fs = _s3fs_of(filesystem, shown)
    bucket, _, key = prefix.partition("/")
    found = s3fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
    for upload in found.get("Uploads", ()):
        where = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
        s3fs.call_s3("abort_multipart_upload", Bucket=bucket, **where)


def _of_fsspec(filesystem: pafs.FileSystem) -> Any:
    handler = getattr(filesystem, "handler", None)
    return handler.fs if isinstance(handler, pafs.FSSpecHandler) else None


def _s3fs_of(filesystem: pafs.FileSystem, shown: str) -> Any:
    inner = _of_fsspec(filesystem)
    return _s3fs_like(filesystem, shown) if inner is None else inner


def _s3fs_like(filesystem: Any, shown: str) -> Any:
    """Of s3fs, with the credentials and the endpoint of pyarrow's, which puts unconditionally."""
    try:
        import s3fs
    except ImportError as error:
        raise StoreError(
            f"{shown}: cannot be locked, which needs s3fs ({error}). Type: {how_to_install('s3')}"
        ) from error
    (options,) = filesystem.__reduce__()[1]
    endpoint = options["endpoint_override"] or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"{options['scheme']}://{endpoint}"
    region = options["region"]
    return s3fs.S3FileSystem(
        key=options["access_key"] or None,
        secret=options["secret_key"] or None,
        token=options["session_token"] or None,
        anon=options["anonymous"],
        endpoint_url=endpoint,
        client_kwargs={"region_name": region} if region else {},
    )


class S3Object:
    """On S3, and on servers that speak as it does."""

    def __init__(self, filesystem: Any, path: str, shown: str) -> None:
        self._fs, self._shown = filesystem, shown
        self._bucket, _, self._key = path.partition("/")

    def create(self, data: bytes) -> str:
        return self._put(data, IfNoneMatch="*")

    def replace(self, data: bytes, tag: str) -> str:
        return self._put(data, IfMatch=tag)

    def _put(self, data: bytes, **condition: str) -> str:
        answer = self._call("put_object", Body=data, **condition)
        return str(answer["ETag"])

    def read(self) -> tuple[bytes, str] | None:
        def get() -> tuple[bytes, str]:
            # What s3fs reads and with which tag are two requests: the same before and after it.
            path = f"{self._bucket}/{self._key}"
            while True:
                tags = [self._fs.info(path, refresh=True)["ETag"]]
                data = self._fs.cat_file(path)
                tags.append(self._fs.info(path, refresh=True)["ETag"])
                if tags[0] == tags[1]:
                    return data, tags[0]

        try:
            return self._told(get)
        except FileNotFoundError:
            return None

    def remove(self, tag: str) -> None:
        self._call("delete_object", IfMatch=tag)

    def is_exclusive(self) -> bool:
        found = self.read()
        try:
            self._put(b"" if found is None else found[0], IfNoneMatch="*")
        except LockChanged:
            return True
        return False

    def _call(self, method: str, **options: Any) -> Any:
        where = {"Bucket": self._bucket, "Key": self._key}
        try:
            return self._told(lambda: self._fs.call_s3(method, **where, **options))
        except FileNotFoundError as error:
            if "bucket" not in str(error).lower():
                raise LockChanged(str(error)) from error
            raise StoreError(
                f"{self._shown}: bucket {self._bucket!r} cannot be written to ({error}). Make it, "
                "or name another."
            ) from error

    def _told(self, call: Callable[[], Result]) -> Result:
        """Raises LockChanged where the condition does not hold, FileNotFoundError for what is
        not there, StoreError for all else: s3fs raises errors of botocore's, too."""
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            if isinstance(error, FileExistsError) or is_precondition(error):
                raise LockChanged(str(error)) from error
            raise StoreError(
                f"{self._shown}: bucket {self._bucket!r} cannot be written to "
                f"({type(error).__name__}: {error}). Expected credentials that may write there, "
                "and the right endpoint: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_ENDPOINT_URL, or what else your configuration has."
            ) from error


def is_precondition(error: BaseException) -> bool:
    """Whether a server says that a condition does not hold, or that another put came between."""
    seen: BaseException | None = error
    while seen is not None:
        answer = getattr(seen, "response", None)
        if isinstance(answer, dict):
            code = answer.get("Error", {}).get("Code")
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return True
        seen = seen.__cause__
    return False


_IN_MEMORY: dict[str, bytes] = {}
_MEMORY = threading.Lock()


class MemoryObject:
    """Of fsspec's memory://, which is of one process: so is the lock."""

    def __init__(self, path: str) -> None:
        self._path = path

    def create(self, data: bytes) -> str:
        with _MEMORY:
            if self._path in _IN_MEMORY:
                raise LockChanged(f"{self._path} is there")
            _IN_MEMORY[self._path] = data
        return data.decode()

    def read(self) -> tuple[bytes, str] | None:
        with _MEMORY:
            data = _IN_MEMORY.get(self._path)
        return None if data is None else (data, data.decode())

    def replace(self, data: bytes, tag: str) -> str:
        with _MEMORY:
            self._check(tag)
            _IN_MEMORY[self._path] = data
        return data.decode()

    def remove(self, tag: str) -> None:
        with _MEMORY:
            self._check(tag)
            del _IN_MEMORY[self._path]

    def _check(self, tag: str) -> None:
        if _IN_MEMORY.get(self._path) != tag.encode():
            raise LockChanged(f"{self._path} has changed")

    def is_exclusive(self) -> bool:
        return True
