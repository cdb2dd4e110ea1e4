"""Reasons why the fallback computes the gradients of a parameter, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import jit, nn

from .calls import Call, Tape

CHECKPOINT = (
    "a reentrant checkpoint of the network supports no other gradients. Set use_reentrant=False"
)
WRONG = (
    "its gradients by the recorded calls differ from those of autograd, because a rule is wrong, or"
    " the network uses samples or parameters in a way that is not recorded. Test your own rules"
    " with check_rule, or register a rule for the layer that contains it"
)


def explain_failure(call: Call) -> str:
    """Return the reason for a call without a rule that torch cannot vectorise over samples."""
    return (
        f"no rule covers its call of {call.name}, and torch.func cannot vectorise the call."
        f" Register a rule for {call.name}, or for the layer that calls it"
    )


def explain_outputs(call: Call) -> str:
    """Return the reason for a call with several outputs."""
    return (
        f"the network uses several outputs of its call of {call.name}. Register a rule for the"
        " layer that calls it"
    )


def explain_changes(call: Call) -> str:
    """Return the reason for a call with an argument that was changed in place."""
    return (
        f"the network changes an argument of its call of {call.name} in place after the call. Let"
        " the network change a copy"
    )


def explain_axes(call: Call) -> str:
    """Return the reason for a call with tensors whose axis of the samples is not known."""
    if isinstance(call.function, nn.Module):
        return (
            f"the rule of {call.name} needs one row of inputs and outputs per sample. Call the"
            " layer with the samples on the first axis, or register a rule for the layer around it"
        )
    return (
        f"the axis of the samples in its call of {call.name} is not known. Let one axis of each"
        " tensor grow in proportion to the number of samples, or register a rule for the layer that"
        " calls it"
    )


def explain_unrecorded(tape: Tape, names: Iterable[str]) -> dict[str, str]:
    """Return the reasons for parameters that no call on samples uses, by name."""
    return {name: _explain_unrecorded(tape, name) for name in names}


def _explain_unrecorded(tape: Tape, name: str) -> str:
    on_samples = [call for call in tape.calls if not call.derived]
    calls = [call for call in on_samples if name in call.parameter_names()]
    if calls:
        return explain_axes(calls[-1])
    owner, _, own_name = name.rpartition(".")
    layer = dict(tape.module.named_modules())[owner]
    if getattr(layer, own_name).is_complex():
        return "it is complex, and rules apply to real parameters. Use a real parameter"
    if isinstance(layer, jit.ScriptModule):
        return "it belongs to a scripted module. Pass the module without torch.jit.script"
    return (
        "it is used by code whose calls are not recorded, such as an autograd.Function or vmap."
        " Register a rule for the layer that contains it"
    )
