"""The smoke test of every kernel, under Triton's interpreter; and a wrong result, which is seen."""

import json
from pathlib import Path

import pytest
import torch
from child_process import environment, run_python

from lowrank.bench.gpu import smoke
from lowrank.bench.gpu.smoke import Results, check

# The interpreter multiplies the bit patterns of bfloat16 matrices, and cuts sums to bfloat16 where a GPU rounds them,
# which is seen in five numbers of rms_norm: these are for a GPU, or the emulator.
FOR_A_GPU = ("table of pairs", "decode", "fused", "int8", "rms_norm")


@pytest.mark.long
def test_what_the_interpreter_can_do_holds(tmp_path: Path) -> None:
    names = [name for name in smoke.CHECKS if not name.startswith(FOR_A_GPU) or name == "decode_attention"]
    command = ("-m", "lowrank.bench.gpu.smoke", "--device", "cpu", "--processes", "1", "--only", "|".join(names))
    run_python(*command, "--out", tmp_path, env=environment(TRITON_INTERPRET="1"))
    (file,) = tmp_path.iterdir()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["check"] for row in rows] == names and all(row["holds"] for row in rows)


def test_what_is_wrong_or_breaks_is_a_row_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    one, wrong = torch.ones(2), torch.tensor([1.0, float("nan")])

    def broken(device: str) -> Results:
        raise RuntimeError("no\n kernel")

    given = {"right": one, "wrong": wrong, "far": one * 1.1}
    checks = {name: lambda device, ours=ours: Results((ours,), (one,), (one.double(),)) for name, ours in given.items()}
    monkeypatch.setattr(smoke, "CHECKS", checks | {"broken": broken})
    assert [check(name, "cpu")["holds"] for name in smoke.CHECKS] == [True, False, False, False]
    assert check("broken", "cpu")["error"] == "no kernel"
    assert smoke.main(["--device", "cpu", "--processes", "1", "--only", "right"]) == 0
    assert smoke.main(["--device", "cpu", "--processes", "1"]) == 1
