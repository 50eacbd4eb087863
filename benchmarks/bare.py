"""What a machine with torch and Triton alone lacks of msgspec: structs as dataclasses.

The messages between the processes are msgspec structs. On a GPU that is lent for minutes nothing can be
installed, and a benchmark inside one process sends none of them anywhere; so there, and nowhere else, they
may be plain dataclasses.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from typing import Any, dataclass_transform


@dataclass_transform(frozen_default=True)
class _Meta(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any], **options: Any) -> type:
        empty = {
            key: value for key, value in space.items() if key[:2] != "__" and type(value) in (dict, list, set)
        }
        space |= {key: dataclasses.field(default_factory=type(value)) for key, value in empty.items()}
        made = super().__new__(mcs, name, bases, space)
        keywords = bool(options.get("kw_only", False))
        finished: type = dataclasses.dataclass(frozen=True, kw_only=keywords)(made)  # type: ignore[arg-type]
        return finished

    def __init__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, space)


class Struct(metaclass=_Meta):
    """Frozen, compared by value."""


def stand_in() -> bool:
    """Puts the stand-in where msgspec is absent. Returns whether it was."""
    try:
        importlib.import_module("msgspec")
    except ImportError:
        pass
    else:
        return False
    module: Any = types.ModuleType("msgspec")
    module.Struct = Struct
    module.structs = types.SimpleNamespace(replace=dataclasses.replace)
    sys.modules["msgspec"] = module
    return True
