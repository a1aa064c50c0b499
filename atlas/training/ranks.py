"""Several processes that train one model (`atlas.ranks` starts them): its weights, gradients and optimizer states are
split among them by FSDP2, and each learns from its own share of every step's prompts.

To transformers every process is alone, so that one trainer serves any number of them. Alone, everything here is
nothing. What is called in one process must be called in all, in the same order.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from atlas.ranks import RENDEZVOUS, place

T = TypeVar("T")


def join() -> None:
    """Meets the other processes. Nothing where there are none."""
    if size() == 1 or dist.is_initialized():
        return
    # Without a limit of their own: an evaluation may take hours, and a dead process is seen by the worker.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{os.environ[RENDEZVOUS]}",
        rank=rank(),
        world_size=size(),
        timeout=timedelta(days=30),
    )


def rank() -> int:
    return place()[0]


def size() -> int:
    return place()[1]


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what a step takes; all parts are equally large."""
    assert len(items) % size() == 0, (len(items), size())
    part = len(items) // size()
    return items[rank() * part : (rank() + 1) * part]


def gather(value: T) -> list[T]:
    """The value of every process, in the order of their ranks."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def sum_of(number: float) -> float:
    """A number added up over all processes."""
    return sum(gather(number))


def sums(values: Mapping[str, float]) -> dict[str, float]:
    """Each number added up over all processes."""
    found = gather(dict(values))
    return {name: sum(each.get(name, 0.0) for each in found) for each in found for name in each}


def means(values: Mapping[str, float]) -> dict[str, float]:
    """The mean of each number over the processes that have it."""
    found = gather(dict(values))
    columns = {name: [each[name] for each in found if name in each] for each in found for name in each}
    return {name: sum(column) / len(column) for name, column in columns.items()}


def total(value: torch.Tensor) -> torch.Tensor:
    """A tensor added up over all processes."""
    if size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def agreed(decide: Callable[[], T]) -> T:
    """What the first process decides; the others do not ask themselves."""
    if size() == 1:
        return decide()
    decision = [decide() if rank() == 0 else None]
    dist.broadcast_object_list(decision)
    return decision[0]  # type: ignore[return-value]


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first process does the block alone, for caches that it fills; then all others do."""
    if size() > 1 and rank() > 0:
        dist.barrier()
    yield
    if size() > 1 and rank() == 0:
        dist.barrier()


def shard(model: torch.nn.Module) -> None:
    """Splits a model among the processes, in place: every layer is put together when it is used, and its gradient is
    the sum over all processes."""
    if size() == 1:
        return
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (size(),))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for module in _sharded(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot divide
    model.atlas_through = lambda work: work()
    register_fsdp_forward_method(model, "atlas_through")


def through(model: Any, work: Callable[[], T]) -> T:
    """Does the work, which uses parts of the model, as if it were a forward of the whole."""
    return model.atlas_through(work) if isinstance(model, FSDPModule) else work()


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """A model that is split is whole in every process inside the block, which may then use it without the others."""
    if not isinstance(model, FSDPModule):
        yield
        return
    with torch.no_grad():
        through(model, lambda: None)  # the first use says which module is the root
    for module in _sharded(model):
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in _sharded(model):
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


def full_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model, split or not, as of a whole one: on the CPU of the first process, nothing in the others."""
    whole_of: dict[int, torch.Tensor] = {}  # tied weights stay one tensor
    state = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        if id(parameter) not in whole_of:
            whole_of[id(parameter)] = _full(parameter)
        state[name] = whole_of[id(parameter)]
    return state if rank() == 0 else {}


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Puts whole tensors into a model, split or not. Raises ValueError for a name or a shape that it does not have."""
    _copy(model.state_dict(), state)


def load_weights(model: Any, directory: Path) -> None:
    """Puts the weights of a saved model, or those of its adapters, into a model. Raises ValueError as `load_state`."""
    live = get_peft_model_state_dict(model) if isinstance(model, PeftModel) else model.state_dict()
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ValueError(f"there are no weights in {directory}")
    for file in files:
        _copy(live, load_file(file))


def save_pretrained(model: Any, directory: Path, **options: Any) -> None:
    """`model.save_pretrained`, by the first process alone, of the whole weights."""
    if size() > 1 and "state_dict" not in options:
        options["state_dict"] = full_state(model)
    if rank() == 0:
        model.save_pretrained(directory, **options)


def full_optimizer_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of an optimizer as one process would have it, so that a run can go on with another number of
    them; of use in the first process alone."""
    return {
        **state,
        "state": {
            number: {name: _full(value) if isinstance(value, DTensor) else value for name, value in of_one.items()}
            for number, of_one in state["state"].items()
        },
    }


def split_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A `state_dict` of one process, split as the optimizer's parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    split = {
        number: {name: _like(value, parameters[number]) for name, value in of_one.items()}
        for number, of_one in state["state"].items()
    }
    return state | {"state": split}


def number(value: Any) -> float:
    """A norm, which may be split, as a number."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The decoder's layers: the longest list of modules that the model has."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def _sharded(model: torch.nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _full(tensor: torch.Tensor) -> torch.Tensor:
    found = tensor.detach()
    if isinstance(found, DTensor):
        found = found.full_tensor()
    return found.cpu() if rank() == 0 else torch.empty(0)


@torch.no_grad()
def _copy(live: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        if name not in live or live[name].shape != tensor.shape:
            there = tuple(live[name].shape) if name in live else "nothing of this name"
            raise ValueError(f"the weight {name} has the shape {tuple(tensor.shape)}, the model {there}")
        live[name].copy_(_like(tensor.to(live[name].dtype), live[name]))


def _like(value: Any, parameter: torch.Tensor) -> Any:
    """The value as it belongs to a parameter: split as it is. Numbers such as a count of steps stay as they are."""
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
