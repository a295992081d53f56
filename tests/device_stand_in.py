"""A stand-in for an accelerator, on machines that have none: it computes, and refuses tensors of two devices."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# PyTorch knows this device everywhere. Its own tensors have no values; those of the stand-in have.
DEVICE = torch.device("meta")


class TensorThere(torch.Tensor):
    """A tensor that claims to be on the stand-in device; its values are in `values`, on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor):
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, values.shape, device=DEVICE, **layout)
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


def compute(operation, args: tuple, kwargs: dict):
    """Run an operation of PyTorch on the CPU; the result is where the operands are, or where it was told to go.

    Raises:
        RuntimeError: some operands are on the stand-in device and others are not.
    """
    operands, form = tree_flatten((args, kwargs))
    targets = [operand for operand in operands if isinstance(operand, torch.device)]
    tensors = [operand for operand in operands if isinstance(operand, torch.Tensor)]
    # As on a GPU, a tensor with a single number may come from the CPU, and `copy_` goes from one device to the other.
    if len({isinstance(tensor, TensorThere) for tensor in tensors if tensor.dim()}) == 2 and "copy_" not in str(
        operation
    ):
        raise RuntimeError(f"{operation}: operands on two devices")
    there = targets[0] == DEVICE if targets else any(isinstance(tensor, TensorThere) for tensor in tensors)

    def here(operand):
        if isinstance(operand, torch.device):
            return torch.device("cpu")
        return operand.values if isinstance(operand, TensorThere) else operand

    positional, named = tree_unflatten([here(operand) for operand in operands], form)
    result = operation(*positional, **named)
    if operation._schema.is_mutable:
        return args[0]
    return tree_map(lambda one: TensorThere(one) if there and isinstance(one, torch.Tensor) else one, result)


class StandInMode(TorchDispatchMode):
    """Lets tensors of the CPU move to the stand-in device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})
