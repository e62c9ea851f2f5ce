"""Progress bars: a process that is killed at any moment leaves no other waiting."""

import ast
from pathlib import Path

import pytest
from child_process import run_python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent

KILLED = """
import os, signal, sys
from lowrank.progress import ProgressBar as Bar

Bar(disable=True).close()
child = os.fork()
if child == 0:
    Bar.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
Bar(disable=True).close()
print("went on")
"""

FORKED = """
import os, threading
from lowrank.progress import ProgressBar as Bar

held, done = threading.Event(), threading.Event()
def hold():
    with Bar.get_lock():
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    Bar(disable=True).close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
thread.join()
print("ended with", status)
"""

TRAINED = """
import sys
import lowrank
from tqdm.std import TqdmDefaultWriteLock
from lowrank.data.encoding.batching import Example
from lowrank.train.config import TrainConfig
from lowrank.train.trainer import train

model = lowrank.load(sys.argv[1], "nf4-dq", progress=True)
config = TrainConfig.from_dict({"adapter": {"rank": 1}, "run": {"out": sys.argv[2], "epochs": 1}})
train(model, [Example("0", (3, 4, 5), (-100, 4, 5))], config, progress=True)
print(hasattr(TqdmDefaultWriteLock, "mp_lock"))
"""


def test_a_process_killed_while_it_has_the_lock_leaves_no_other_waiting() -> None:
    assert run_python("-c", KILLED, limit=60).stdout == "went on\n"


def test_a_fork_does_not_wait_for_a_thread_that_is_not_in_it() -> None:
    assert run_python("-c", FORKED, limit=60).stdout == "ended with 0\n"


def test_a_training_run_makes_no_lock_that_forks_share(golden: Path, tmp_path: Path) -> None:
    assert run_python("-c", TRAINED, golden / "meta-tiny-mha", tmp_path / "out").stdout == "False\n"


def test_every_bar_is_one_of_these() -> None:
    using = []
    for folder in ("lowrank", "kernels", "model", "train", "eval", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                using += [str(path.relative_to(ROOT)) for name in names if name.split(".")[0] == "tqdm"]
    assert using == ["lowrank/progress.py"]
