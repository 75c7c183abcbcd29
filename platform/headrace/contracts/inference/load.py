"""Load a contract from its source text, to try it before it is written."""

from __future__ import annotations

import sys
from types import ModuleType

from headrace.contracts.base import Contract
from headrace.contracts.inference.source import constant_name
from headrace.core.errors import Fatal

_MODULE = "headrace_inferred_contract"


def load_contract(source: str, stream: str) -> Contract:
    """Execute the source text that ``contract_source`` wrote, and return the contract.

    Raises:
        Fatal: It does not load, which is a defect.
    """
    module = ModuleType(_MODULE)
    sys.modules[_MODULE] = module  # Pandera looks annotations up there
    try:
        exec(compile(source, f"<contract of {stream}>", "exec"), module.__dict__)
        found = getattr(module, constant_name(stream))
    except Exception as error:
        raise Fatal(
            f"the contract that was written for {stream!r} does not load, which is a defect of Headrace: {error}"
        ) from error
    finally:
        sys.modules.pop(_MODULE, None)
    assert isinstance(found, Contract)
    _ = found.columns  # worked out while its module is there
    return found
