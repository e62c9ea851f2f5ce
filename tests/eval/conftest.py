"""The public data sets in small, which the tests of the mixture invent."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parent.parent / "lowrank" / "data" / "mixture" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("mixture_fixtures", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

raw = _FIXTURES.raw
