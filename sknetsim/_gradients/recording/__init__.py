"""Calls with parameters in a forward pass: their record, their samples and their gradients."""

from __future__ import annotations

from .calls import Call, Origin, Tape
from .recorder import record_calls
from .resolution import Resolver, Use

__all__ = ["Call", "Origin", "Resolver", "Tape", "Use", "record_calls"]
