"""Downloads: resumable, checked by SHA-256, whole or not at all."""

import http.client
import os
import pathlib
import urllib.error
import urllib.request

import filelock

from pofx.core import UsageError
from pofx.data.files import cache, digest, make_folder, need_space, progress

_BLOCK = 1 << 20


def fetch(url: str, name: str, sha256: str) -> pathlib.Path:
    """The file `name` (folder/file) of the cache, downloaded from `url` where it is not there yet.

    What a broken download left is kept beside it and continued by the next call. Raises `UsageError`, which names the
    address and the place for a copy made by hand, where the file cannot be had or is not the expected one.
    """
    path = cache() / "downloads" / name
    make_folder(path.parent)
    part = path.with_name(path.name + ".part")
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            _check(path, sha256, url, path)
            return path
        try:
            _transfer(url, part)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UsageError(f"cannot download {url} ({reason}): try again, or put a copy of the file at {path}") from error
        _check(part, sha256, url, path)
        os.replace(part, path)
    return path


def _check(found: pathlib.Path, sha256: str, url: str, path: pathlib.Path) -> None:
    """Raises `UsageError` where the file is another one; a finished download that is wrong is thrown away."""
    if digest(found) == sha256:
        return
    if found != path:
        found.unlink()
        raise UsageError(f"{url} sent another file than expected (its SHA-256 differs): try again, or put the right file at {path}")
    raise UsageError(f"{path} is not the expected file (its SHA-256 differs): remove it to have {url} downloaded")


def _transfer(url: str, part: pathlib.Path) -> None:
    """Appends to `part` what it lacks of `url`; starts again where the server does not continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pofx", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        # Everything is here already, or `part` belongs to another version of the file: start again.
        part.unlink()
        _transfer(url, part)
        return
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        left = int(response.headers.get("Content-Length") or 0)
        need_space(part.parent, left)
        with part.open("ab" if resumed else "wb") as file, progress(f"downloading {url}", left, "bytes") as advance:
            received = 0
            while block := response.read(_BLOCK):
                file.write(block)
                received += len(block)
                advance(len(block))
        if left and received < left:
            raise OSError(f"the connection broke after {received:,} of {left:,} bytes")
