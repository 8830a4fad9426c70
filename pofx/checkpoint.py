"""Checkpoints: folders of safetensors and JSON, hashed in a manifest that is written last, renamed into place.

A folder is complete or it is not there: files are written to a temporary folder whose name starts with a dot, flushed to
the disk one by one, then the folder is renamed and its parent flushed. Nothing is pickled.
"""

import errno
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors
from torch import Tensor, nn

from pofx.core import TrainingError

MANIFEST = "manifest.json"
WEIGHTS, AVERAGE, TRAINING, DESCRIPTION = "weights.safetensors", "ema.safetensors", "training.safetensors", "config.json"
FILES = frozenset({DESCRIPTION, WEIGHTS, AVERAGE, TRAINING})


class Damaged(Exception):
    """A checkpoint whose bytes are not those that were saved; the message names the file."""


def flush(path: pathlib.Path) -> None:
    """Makes a file's, or where the system can a folder's, content durable."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes and flushes one file. Raises `TrainingError` with one sentence where the disk is full or refuses."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise TrainingError(f"cannot write {path}: {reason}; what was saved before is intact") from error


def replace_file(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file by new content in one step: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_bytes(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def to_json(values: Mapping[str, Any]) -> bytes:
    """JSON of sorted keys, so that equal values are equal bytes."""
    return json.dumps(values, indent=1, sort_keys=True).encode()


def folder(checkpoints: pathlib.Path, step: int) -> pathlib.Path:
    """Where the checkpoint after `step` moves is kept."""
    return checkpoints / f"{step:09d}"


def steps(checkpoints: pathlib.Path) -> list[int]:
    """The steps of which a checkpoint is kept, oldest first; whether they are sound `verify` tells."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.is_dir() and entry.name.isdigit())


def sweep(checkpoints: pathlib.Path) -> None:
    """Removes what an interrupted save left behind; a replacement that was interrupted between its two renames is finished."""
    if checkpoints.is_dir():
        for stale in checkpoints.glob(".*.old"):
            target = stale.with_name(stale.name[1:-4])
            temporary = stale.with_name(f".{target.name}.tmp")
            if temporary.exists() and not target.exists():
                # What takes its place was whole on the disk before the old one moved.
                temporary.rename(target)
        for entry in checkpoints.iterdir():
            if entry.name.startswith("."):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def save(
    checkpoints: pathlib.Path,
    step: int,
    *,
    description: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
) -> pathlib.Path:
    """Saves a checkpoint whole or not at all, and returns its folder.

    Raises `TrainingError` with one sentence where the disk is full or refuses; older checkpoints are untouched.
    """
    states = ((WEIGHTS, weights), (AVERAGE, average), (TRAINING, training))
    files = itertools.chain([(DESCRIPTION, to_json(description))], ((name, to_bytes(state)) for name, state in states))
    return save_folder(folder(checkpoints, step), files)


def save_folder(target: pathlib.Path, files: Iterable[tuple[str, bytes]]) -> pathlib.Path:
    """Saves files (name and content) and a manifest of their hashes as a folder, in the place of what stood there, whole or
    not at all.

    Raises `TrainingError` with one sentence where the disk is full or refuses; what stood there is then untouched.
    """
    parent, temporary = target.parent, target.with_name(f".{target.name}.tmp")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
    except OSError as error:
        raise TrainingError(f"cannot write {temporary}: {error.strerror or error}; what was saved before is intact") from error
    try:
        hashes: dict[str, dict[str, Any]] = {}
        for name, content in files:
            write_bytes(temporary / name, content)
            hashes[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        body = to_json(hashes)
        write_bytes(temporary / MANIFEST, to_json({"files": hashes, "sha256": hashlib.sha256(body).hexdigest()}))
        flush(temporary)
        if target.exists():
            # One of the same name, such as a damaged one that resuming has passed over; out of the way in one step.
            stale = target.with_name(f".{target.name}.old")
            shutil.rmtree(stale, ignore_errors=True)
            target.rename(stale)
            temporary.rename(target)
            shutil.rmtree(stale)
        else:
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush(parent)
    return target


def to_bytes(values: Mapping[str, Tensor]) -> bytes:
    """Tensors in the safetensors format."""
    # Sorted, so that equal states give equal files; contiguous, since channels_last is how we compute, not what we keep.
    return format_tensors({name: values[name].detach().to("cpu").contiguous() for name in sorted(values)})


def verify(checkpoint: pathlib.Path, names: Set[str] = FILES) -> dict[str, bytes]:
    """The files of a checkpoint (of any folder that `save_folder` wrote, where `names` are other ones), every byte checked
    against the manifest. Raises `Damaged` naming the first bad file."""
    try:
        manifest_bytes = (checkpoint / MANIFEST).read_bytes()
        manifest = json.loads(manifest_bytes)
        files = manifest["files"]
        # The manifest is compared with what we would write for it, so that no byte of it is free.
        sound = hashlib.sha256(to_json(files)).hexdigest() == manifest["sha256"] and to_json(manifest) == manifest_bytes
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{checkpoint / MANIFEST} is missing or unreadable") from error
    if not sound or set(files) != names:
        raise Damaged(f"{checkpoint / MANIFEST} does not have the checksum that it was saved with")
    contents = {}
    for name, entry in files.items():
        try:
            contents[name] = (checkpoint / name).read_bytes()
        except OSError as error:
            raise Damaged(f"{checkpoint / name} is missing or unreadable") from error
        if hashlib.sha256(contents[name]).hexdigest() != entry["sha256"]:
            raise Damaged(f"{checkpoint / name} does not have the checksum that it was saved with")
    return contents


def read(checkpoint: pathlib.Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The description and the tensors (by file name) of a verified checkpoint. Raises `Damaged`."""
    contents = verify(checkpoint)
    try:
        tensors = {name: parse_tensors(contents[name]) for name in (WEIGHTS, AVERAGE, TRAINING)}
        return json.loads(contents[DESCRIPTION]), tensors
    except (SafetensorError, ValueError) as error:
        raise Damaged(f"{checkpoint} cannot be read: {error}") from error


def prune(checkpoints: pathlib.Path, keep: int, *, protect: int | None) -> None:
    """Removes all but the last `keep` checkpoints and the protected one."""
    for step in steps(checkpoints)[:-keep]:
        if step != protect:
            remove(checkpoints, step)


def remove(checkpoints: pathlib.Path, step: int) -> None:
    """Removes the checkpoint after `step` moves."""
    # Renamed first: a removal that is interrupted half-way must not look like a damaged checkpoint.
    old = folder(checkpoints, step)
    gone = old.with_name(f".{old.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    old.rename(gone)
    shutil.rmtree(gone)


def restore(module: nn.Module, state: Mapping[str, Tensor], *, resizable: frozenset[str] = frozenset()) -> None:
    """Copies a saved state into a module in place, keeping its memory layout; resizable buffers take the saved size."""
    own = module.state_dict(keep_vars=True)
    if missing := sorted(set(own) ^ set(state)):
        raise Damaged(f"the checkpoint does not fit the model: {missing[0]} is in one of them only")
    with torch.no_grad():
        for name, value in state.items():
            if own[name].shape != value.shape and name in resizable:
                own[name].resize_(value.shape)
            if own[name].shape != value.shape:
                raise Damaged(f"the checkpoint does not fit the model: {name} is {tuple(value.shape)}, not {tuple(own[name].shape)}")
            own[name].copy_(value)


def hash_of(checkpoint: pathlib.Path) -> str:
    """What names a checkpoint by its content: the manifest's own checksum."""
    manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_bytes())
    return str(manifest["sha256"])
