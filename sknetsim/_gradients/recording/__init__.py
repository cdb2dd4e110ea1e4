"""Forward passes that record what each call does with the parameters, and where the samples are."""

from __future__ import annotations

from .calls import Call, Source, Tape
from .recorder import record_calls
from .resolution import Resolver, Use

__all__ = ["Call", "Resolver", "Source", "Tape", "Use", "record_calls"]
