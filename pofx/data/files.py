"""Files: the cache folder, whole-or-nothing writes, hashes of content."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from pofx.core import UsageError

#: Arrays above this many bytes are memory-mapped, never copied.
MAPPED = 1 << 30


def cache() -> pathlib.Path:
    """The folder for downloads and decoded images: $POFX_CACHE, else the platform's own place."""
    if given := os.environ.get("POFX_CACHE"):
        return pathlib.Path(given).expanduser()
    if sys.platform == "darwin":
        return pathlib.Path.home() / "Library" / "Caches" / "pofx"
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA", pathlib.Path.home() / "AppData" / "Local")) / "pofx" / "Cache"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pofx"


def make_folder(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, made with its parents. Raises `UsageError` where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder} ({error.strerror}): choose another (POFX_CACHE sets that of the cache)"
        ) from error
    return folder


def need_space(folder: pathlib.Path, size: int) -> None:
    """Raises `UsageError` where fewer than `size` bytes and a little more are free in `folder`."""
    free = shutil.disk_usage(folder).free
    if free < size + (16 << 20):
        raise UsageError(
            f"{folder} needs {size / 1e9:.1f} GB and has {free / 1e9:.1f} GB free: make room, or set POFX_CACHE to a larger disk"
        )


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, with its ending, that takes its place when the block ends without an error."""
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}): choose another place") from error
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        # mkstemp made the file private; a result has the permissions of any other file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an error. Raises `UsageError`
    where `path` holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not an empty folder: choose another, or remove what is there")
    make_folder(path.parent)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file's content; that of a large file is remembered in the cache until its size or time changes."""
    stat = path.stat()
    memory = None
    if stat.st_size > MAPPED:
        name = f"{path.resolve()}\n{stat.st_ino}\n{stat.st_size}\n{stat.st_mtime_ns}"
        memory = cache() / "hashes" / hashlib.sha256(name.encode()).hexdigest()
        if memory.exists():
            return memory.read_text(encoding="ascii")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if memory is not None:
        with whole(memory) as temporary:
            temporary.write_text(found, encoding="ascii")
    return found


def digest_array(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, in blocks of rows."""
    found = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start in range(0, len(array), 4096):
        found.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def progress(what: str, total: int, unit: str = "", *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; the block calls what it is given with each advance.

    Arguments:
        unit: bytes shows amounts as such.
        shown: whether it is worth a bar.
    """
    if not shown or not sys.stderr.isatty() or "NO_COLOR" in os.environ:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda count: bar.update(task, advance=count)
