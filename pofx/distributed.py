"""Ranks, for `torchrun`: who we are, what everybody agrees on, and the mean of gradients. One process needs none of it."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: torch.device) -> None:
    """Joins the group that `torchrun` set up; does nothing in a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over ranks, in one flat all-reduce."""
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= size()
    offset = 0
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()


def agree(value: int) -> int:
    """The largest of every rank's `value`: whether anybody was asked to stop, whether anybody's loss is not finite."""
    if size() == 1:
        return value
    shared = torch.tensor([value], device=_device())
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def first(value: float) -> float:
    """Rank 0's `value`: what the clock on the wall says differs from rank to rank."""
    if size() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=_device())
    dist.broadcast(shared, src=0)
    return float(shared)


def first_text(text: str) -> str:
    """Rank 0's `text`."""
    if size() == 1:
        return text
    encoded = text.encode()
    shared = torch.zeros(int(first(len(encoded))), dtype=torch.uint8, device=_device())
    if rank() == 0:
        shared.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
    dist.broadcast(shared, src=0)
    return bytes(shared.tolist()).decode()


def barrier() -> None:
    """Waits for every rank."""
    if size() > 1:
        dist.barrier()
