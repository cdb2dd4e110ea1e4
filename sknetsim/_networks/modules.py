"""Modules without their wrappers: checks, names of their parts, and arguments."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..exceptions import UnsupportedNetworkError

# Classes that wrap a module, and the attribute that contains the module.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def unwrap_module(module: Any) -> Any:
    """Return the module without its wrappers."""
    while (attribute := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, attribute)
    return module


def check_module(module: nn.Module) -> nn.Module:
    """Return the module without its wrappers; raise if it cannot have per-sample gradients."""
    module = unwrap_module(module)
    if type(module).__name__ == "FullyShardedDataParallel":
        raise UnsupportedNetworkError(
            "`estimator` must be a module with all its parameters; got a FullyShardedDataParallel,"
            " whose parameters are distributed. Gather its state_dict into a plain module."
        )
    for name, part in module.named_modules():
        for problem, cure in _list_problems(part):
            raise UnsupportedNetworkError(
                f"`estimator` must have no layer {problem}; got the {type(part).__name__} {name!r}."
                f" {cure}"
            )
    return module


def _list_problems(part: nn.Module) -> list[tuple[str, str]]:
    """Return the properties of a layer that rule out per-sample gradients, each with its cure."""
    problems = []
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        if part.max_norm is not None:
            problems.append(
                (
                    "with max_norm, which changes the weights in the forward pass",
                    "Renormalise the weights once, and set max_norm=None.",
                )
            )
        if part.scale_grad_by_freq:
            problems.append(
                (
                    "with scale_grad_by_freq, which mixes the samples of a batch",
                    "Set scale_grad_by_freq=False.",
                )
            )
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
        problems.append(
            (
                "without running statistics, because its outputs depend on the batch",
                "Train it with track_running_stats=True, or use GroupNorm.",
            )
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in part._parameters.values()):
        problems.append(("with uninitialised parameters", "Run the network once on a batch."))
    tensors = (*part._parameters.values(), *part._buffers.values())
    if any(tensor is not None and tensor.is_meta for tensor in tensors):
        problems.append(
            ("with tensors on the meta device, which have no data", "Load its weights first.")
        )
    return problems


@dataclass(frozen=True)
class Arguments:
    """Arguments of the forward pass of a module.

    Attributes
    ----------
    names : list of str
        Names of the arguments.
    required : list of str
        Names of the arguments without a default value.
    takes_positional : bool
        Whether more positional arguments are taken, as by a wrapper.
    takes_keywords : bool
        Whether keyword arguments of any name are taken.
    """

    names: list[str]
    required: list[str]
    takes_positional: bool
    takes_keywords: bool

    @classmethod
    def of(cls, module: Any) -> Arguments:
        """Return the arguments of a module.

        If its forward pass has no signature, any arguments are accepted.
        """
        module = unwrap_module(module)
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (AttributeError, TypeError, ValueError):
            return cls([], [], True, True)
        kinds = {parameter.kind for parameter in parameters}
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        named = named[1:] if isinstance(module, type) else named  # Without "self".
        return cls(
            [parameter.name for parameter in named],
            [parameter.name for parameter in named if parameter.default is parameter.empty],
            inspect.Parameter.VAR_POSITIONAL in kinds,
            inspect.Parameter.VAR_KEYWORD in kinds,
        )

    def are_columns(self, columns: Sequence[Any], unless_known: bool) -> bool:
        """Return whether the columns of a table are passed as arguments, and not as an array.

        This is the case if each column is an argument. It is also the case if the network requires
        several arguments and each of these is a column; other columns are then an error.
        ``unless_known`` is the result if the names of the arguments are unknown.
        """
        if self.takes_positional or not columns:
            return bool(columns) and self.takes_keywords and unless_known
        if self.takes_keywords:
            return set(self.required) <= set(columns)
        is_covered = len(self.required) > 1 and set(self.required) <= set(columns)
        return is_covered or set(columns) <= set(self.names)

    def check(self, columns: Sequence[Any]) -> None:
        """Raise an error unless all columns are arguments, and all required ones are given."""
        unknown = [] if self.takes_keywords else [c for c in columns if c not in self.names]
        missing = [name for name in self.required if name not in columns]
        if not unknown and not missing:
            return
        problem = f"got also {format_names(unknown)}" if unknown else "got no "
        problem += "" if unknown else format_names(missing)
        raise ValueError(
            "`X` must have the names of the arguments that the network takes as keyword arguments"
            f" ({format_names(self.names)}); {problem}. Pass these columns only, or pass an array."
        )


def match_names(names: Iterable[str], patterns: Any) -> set[str]:
    """Return the names that match one of the patterns, if each pattern matches a name.

    Parameters
    ----------
    names : iterable of str
        Names of layers or parameters.
    patterns : object
        A name, a pattern such as "head.*", or a list of these. Other values match no name.

    Returns
    -------
    matches : set of str
        The names; empty if some pattern matches no name.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list | tuple | set) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        return set()
    matches = [fnmatch.filter(names, pattern) for pattern in patterns]
    return set().union(*matches) if all(matches) else set()


def format_names(names: Iterable[str]) -> str:
    """Return the first 20 names, quoted and separated by commas, for messages."""
    return ", ".join(repr(name) for name in list(names)[:20])
