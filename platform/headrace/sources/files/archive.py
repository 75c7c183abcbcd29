"""List and open the archive's files: in a local folder or below a prefix of an S3 bucket, read only."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow.fs as pafs

from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable

_S3 = "s3://"
#: Bytes of one read; on S3 each read is a request, so it is larger there.
_LOCAL_BUFFER, _S3_BUFFER = 1 << 18, 8 << 20
_CONNECT_SECONDS, _REQUEST_SECONDS = 5, 30
#: delta-rs' names of options, without ``aws_`` -> pyarrow's.
_OPTIONS = {
    "access_key_id": "access_key",
    "secret_access_key": "secret_key",
    "session_token": "session_token",
    "region": "region",
    "default_region": "region",
    "endpoint": "endpoint_override",
    "endpoint_url": "endpoint_override",
}
#: Beginnings and ends of names of files that are not finished, or not meant to be read.
_PASSED_OVER_STARTS, _PASSED_OVER_ENDS = (".", "_"), (".tmp", ".part")


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A file as a listing shows it.

    Attributes:
        path: Path below the archive, with forward slashes.
        size: Bytes.
        mtime_ns: When it was last written, nanoseconds since 1970.
    """

    path: str
    size: int
    mtime_ns: int


class Archive:
    """A folder or an S3 prefix. Creating the object touches nothing.

    Args:
        uri: A local folder, or ``s3://bucket/prefix``.
        storage_options: Keys, region, endpoint and ``allow_http`` as delta-rs names them; others are ignored.
            Without keys the usual AWS chain answers.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/") or "/"
        self.on_s3 = uri.startswith(_S3)
        self._options = storage_options or {}
        self._root = self.uri.removeprefix(_S3) if self.on_s3 else str(Path(self.uri).expanduser().absolute())

    @cached_property
    def _filesystem(self) -> pafs.FileSystem:
        if not self.on_s3:
            return pafs.LocalFileSystem()
        try:
            return pafs.S3FileSystem(
                **s3_options(self._options),
                connect_timeout=_CONNECT_SECONDS,
                request_timeout=_REQUEST_SECONDS,
            )
        except ValueError as error:
            raise Fatal(f"HEADRACE_ARCHIVE_STORAGE_OPTIONS do not fit {self.uri}: {error}") from error

    def name(self, path: str) -> str:
        """Return a file's name as a person finds it."""
        return f"{self.uri}/{path}"

    def files(self, folder: str) -> list[Found]:
        """List the files below a folder with its sub-folders, in order of their paths; none if it does not exist.

        Three kinds are skipped: hidden files, those with a name (or a folder's name) that begins with ``_``,
        and those that end in ``.tmp`` or ``.part``.

        Raises:
            Fatal: The bucket does not exist, or access is denied.
            Retriable: The storage does not answer.
        """
        where = pafs.FileSelector(f"{self._root}/{folder}", recursive=True, allow_not_found=True)
        with _translated(self.name(folder)):
            listed = self._filesystem.get_file_info(where)
            if self.on_s3 and not listed:
                self._require_bucket()
        below = len(self._root) + 1
        found = (Found(i.path[below:], i.size, i.mtime_ns) for i in listed if i.type == pafs.FileType.File)
        return sorted(file for file in found if _is_meant(file.path, folder))

    def _require_bucket(self) -> None:
        bucket = self._root.partition("/")[0]
        if self._filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise Fatal(f"bucket {bucket!r} does not exist; create it or correct HEADRACE_ARCHIVE={self.uri}")

    def stamp(self, path: str) -> str:
        """Return a text that changes whenever a file's content does.

        It is made of size and time of the last write, on S3 of the ETag too.

        Raises:
            BadData: The file no longer exists, or access to this one alone is denied.
            Fatal, Retriable: As ``files``.
        """
        with _translated(self.name(path), denied=BadData):
            info = self._filesystem.get_file_info(f"{self._root}/{path}")
            if info.type != pafs.FileType.File:
                raise FileNotFoundError(path)
            stamp = f"{info.size}:{info.mtime_ns}"
            if not self.on_s3:
                return stamp
            with self._filesystem.open_input_file(f"{self._root}/{path}") as file:
                return f"{stamp}:{_text(file.metadata()['ETag'])}"

    def open(self, path: str) -> IO[bytes]:
        """Open a seekable file; raises as ``stamp`` does, here and in every read."""
        name = self.name(path)
        with _translated(name, denied=BadData):
            file = self._filesystem.open_input_file(f"{self._root}/{path}")
        return io.BufferedReader(_Raw(file, name), _S3_BUFFER if self.on_s3 else _LOCAL_BUFFER)


class _Raw(io.RawIOBase):
    """A file whose storage errors are translated, so that nobody takes it for a file with broken content."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._named = file, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _translated(self._named):
            return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _translated(self._named):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def s3_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate delta-rs' storage options to pyarrow's; an endpoint with ``http`` needs no ``allow_http``."""
    plain = {key.lower().removeprefix("aws_"): value for key, value in options.items()}
    found: dict[str, Any] = {_OPTIONS[key]: value for key, value in plain.items() if key in _OPTIONS}
    if plain.get("allow_http", "").lower() in ("true", "1") and "://" not in found.get(
        "endpoint_override", ""
    ):
        found["scheme"] = "http"
    return found


def _is_meant(path: str, folder: str) -> bool:
    parts = path[len(folder) + 1 :].split("/")
    return not any(p.startswith(_PASSED_OVER_STARTS) for p in parts) and not path.endswith(_PASSED_OVER_ENDS)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


@contextmanager
def _translated(name: str, denied: type[HeadraceError] = Fatal) -> Iterator[None]:
    """Translate exceptions of the operating system and of pyarrow into ours, here and nowhere else."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadData(f"{name} is no longer there") from error
    except PermissionError as error:
        raise denied(f"{name} may not be read: let Headrace's user read it, then touch it") from error
    except OSError as error:
        text = " ".join(str(error).split())
        if "ACCESS_DENIED" in text or "SIGNATURE_DOES_NOT_MATCH" in text or "INVALID_ACCESS_KEY_ID" in text:
            raise Fatal(f"{name} may not be read: {text[:300]}; check the keys and their rights") from error
        raise Retriable(f"{name} cannot be read now: {text[:300]}") from error
