"""State of a network that no call may change."""

import random

import numpy as np
import torch


def record_state(network):
    """Return everything that a call must not change: of a network, and of the process."""
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [
            (
                len(module._forward_hooks),
                len(module._forward_pre_hooks),
                len(module._backward_hooks),
            )
            for module in network.modules()
        ],
        "requires_grad": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [
            None if parameter.grad is None else parameter.grad.numpy().tobytes()
            for parameter in network.parameters()
        ],
        "addresses": [id(parameter) for parameter in network.parameters()],
        "values": [value.detach().numpy().tobytes() for value in network.state_dict().values()],
        "attributes": [sorted(vars(module)) for module in network.modules()],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
        "python": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
    }


def make_state_uneven(network):
    """Mix training and evaluation modes, and set the gradients of some parameters."""
    for index, module in enumerate(network.modules()):
        module.training = index % 3 != 0
    for parameter in list(network.parameters())[::2]:
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 0.5)
    return network
