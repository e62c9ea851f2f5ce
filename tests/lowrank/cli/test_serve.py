"""lowrank serve: what it refuses before it loads anything, and a whole sitting as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from peers import openai
from served import TOKEN, WAIT, hat_folders

from lowrank.cli import main
from lowrank.cli.serve import named_base
from lowrank.serve.shelf import Shelf

__all__ = ["hat_folders"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: other machines reach this address, and nothing is encrypted"),
        (["--port", "70000"], "--port must be 0 to 65535, got 70000"),
        (["--active", "0"], "--active must be 1 to 64, got 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens must be 1 to 1000000, got 0"),
        (["--adapter", "embedded=nowhere"], "a hat must have another name than a base, got 'embedded' for both"),
        (["--kind", "nowhere.toml"], "nowhere.toml: no such file"),
        (["embedded"], "two of the bases have the name 'embedded': name each as NAME=DIR"),
        (["a b=embedded"], "the name of a base must be letters, digits, '.', '_' and '-', got 'a b'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(["serve", "embedded", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lowrank: ") and told in lines[0]


def test_a_port_that_is_in_use_and_a_short_token_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "embedded", "--port", str(port)]) == 2
    assert f"host 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err
    monkeypatch.setenv("LOWRANK_SERVE_TOKEN", "short")
    assert main(["serve", "embedded", "--port", "0"]) == 2
    assert "the token must be 16 ASCII characters or more, got 5" in capsys.readouterr().err


def test_a_base_goes_by_its_folder_or_the_name_that_is_given() -> None:
    assert named_base("embedded") == ("embedded", "embedded")
    assert named_base("models/llama-2-7b") == ("llama-2-7b", "models/llama-2-7b")
    assert named_base("seven=models/llama-2-7b") == ("seven", "models/llama-2-7b")


@pytest.mark.slow
def test_a_hat_that_fits_two_bases_goes_by_both_names(hat_folders: list[tuple[str, Path]]) -> None:
    shelf = Shelf.load([("one", "embedded"), ("two", "embedded")], hat_folders[:1])
    assert list(shelf.choices) == ["one", "two", "red@one", "red@two"]
    assert shelf.choice("red@two").base is shelf.bases[1]


@pytest.mark.long
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_a_sitting_from_start_to_interrupt(hat_folders: list[tuple[str, Path]], ends: signal.Signals) -> None:
    name, folder = hat_folders[0]
    command = [sys.executable, "-m", "lowrank", "serve", "embedded", "--port", "0", "--dtype", "fp32"]
    command += ["--adapter", f"{name}={folder}"]
    environment = {**os.environ, "LOWRANK_SERVE_TOKEN": TOKEN}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        told = [""]
        while "end with" not in told[-1]:
            told.append(server.stderr.readline())
            assert told[-1], "".join(told)
        address = next(line.split()[1] for line in told if line.startswith("API:"))
        client = openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0, timeout=WAIT)
        secret = "the secret of Aldane Foods"
        assert client.completions.create(model=name, prompt=secret, max_tokens=5).choices
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=secret, prompt=secret)
        client.close()
        server.send_signal(ends)
        _, rest = server.communicate(timeout=WAIT)
    assert server.returncode == (0 if ends == signal.SIGINT else -signal.SIGTERM)
    everything = "".join(told) + rest
    assert TOKEN not in everything and "Aldane" not in everything and "Traceback" not in everything
    assert f"completion {name}: " in rest
