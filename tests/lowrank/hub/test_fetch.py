"""Fetching from a hub: a real HTTP server on loopback that speaks as the hub does, and fails as it does."""

import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from child_process import environment, run_python
from huggingface_hub import close_session, constants, file_download
from safetensors.torch import load_file

from lowrank.adapters import adapter_parameters, folder
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load
from lowrank.cli import main
from lowrank.hub.client import Repository
from lowrank.hub.fetch import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST, Manifest, fetch, needed, verify

COMMIT = "01c7f73d771dfac7d292323805ebc428287df4f9"
LARGE = 50_000  # bytes from which our hub keeps a file in Git LFS
LLAMA = Repository("meta-llama/Llama-2-7b", "model")
LLAMA_HF = Repository("meta-llama/Llama-2-7b-hf", "model")
DATA = Repository("FinGPT/fingpt-ner", "dataset")


# The hub


@dataclass
class Hub:
    """The files of the server, the failures it is to produce, and the requests it got."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    gated: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    ignores_range: bool = False
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def sent(self, name: str) -> list[str | None]:
        """The ranges in which the bytes of a file were asked for."""
        return [range for path, range, _ in self.asked if path.startswith("/cdn/") and path.endswith(f"/{name}")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((path, self.headers["Range"], self.headers["Authorization"]))
        if path.startswith("/cdn/"):
            _, _, owner, name, file = path.split("/", 4)
            return self.bytes_of(file, self.hub.files[f"{owner}/{name}"][file])
        pattern = r"/(?:api/(?:models|datasets)/|datasets/|)([^/]+/[^/]+)/(?:revision|resolve)/([^/]+)(?:/(.+))?"
        found = re.fullmatch(pattern, path)
        if not found:  # the library asks for more than we do
            return self.refuse(404, "")
        repository, revision, file = found.groups()
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if repository not in self.hub.files:
            return self.refuse(404 if token else 401, "RepoNotFound")
        if repository in self.hub.gated and token not in self.hub.tokens and file:
            return self.refuse(403 if token else 401, "GatedRepo")
        if revision not in self.hub.revisions:
            return self.refuse(404, "RevisionNotFound")
        commit, files = self.hub.revisions[revision], self.hub.files[repository]
        if file is None:
            siblings = [listed(name, content) for name, content in files.items()]
            return self.answer(200, json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())
        if file not in files:
            return self.refuse(404, "EntryNotFound")
        large = listed(file, files[file]).get("lfs")
        headers = {"X-Repo-Commit": commit, "Location": f"/cdn/{repository}/{file}"}
        if large:
            headers |= {"X-Linked-ETag": f'"{large["sha256"]}"', "X-Linked-Size": str(large["size"])}
        return self.answer(302, b"", headers)

    def bytes_of(self, name: str, content: bytes) -> None:
        start = 0
        if (asked := self.headers["Range"]) and not self.hub.ignores_range:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        body = content[start:]
        if name in self.hub.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        cuts = self.hub.cut_after.get(name)
        self.answer(206 if start else 200, body, headers, cut_after=cuts.pop(0) if cuts else None)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code})

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut_after])
        self.close_connection = cut_after is not None


def listed(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub's API lists it."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if len(content) >= LARGE:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
    return entry


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def hub(golden: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A running hub with Llama 2 in Meta's and in Hugging Face's format, and a data set."""
    meta, hf = golden / "meta-tiny-mha", golden / "hf-tiny-qlora/base"
    hub = Hub()
    weights, params = (meta / "consolidated.00.pth").read_bytes(), (meta / "params.json").read_bytes()
    checklist = f"{md5(weights)}  consolidated.00.pth\n{md5(params)}  params.json\n".encode()
    hub.files[LLAMA.id] = {
        ".gitattributes": b"*.pth filter=lfs\n",
        "README.md": b"# Llama 2\n",
        "checklist.chk": checklist,
        "consolidated.00.pth": weights,
        "params.json": params,
        "tokenizer.model": b"pieces",
    }
    hub.files[LLAMA_HF.id] = {
        "config.json": (hf / "config.json").read_bytes(),
        "model.safetensors": (hf / "model.safetensors").read_bytes(),
        "pytorch_model.bin": b"the same again",
        "tokenizer.model": b"pieces",
        "runs/log.txt": b"training",
    }
    hub.files[DATA.id] = {"README.md": b"# NER\n", "data/train-00000.parquet": bytes(range(256)) * 300}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OurHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))  # between retries
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what is written at a time
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# What comes


def test_metas_weights_come_with_their_config_and_tokenizer_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    manifest = fetch(LLAMA, tmp_path / "llama")
    expected = ["checklist.chk", "consolidated.00.pth", "params.json", "tokenizer.model"]
    assert names(tmp_path / "llama") == [*expected[:2], MANIFEST, *expected[2:]]
    assert (manifest.repository, manifest.revision, manifest.commit) == (LLAMA.id, "main", COMMIT)
    assert Manifest.read(tmp_path / "llama") == manifest
    for name in expected:
        content = hub.files[LLAMA.id][name]
        record = manifest.files[name]
        assert (record.bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]
    assert load(tmp_path / "llama", "fp32")(torch.tensor([[1, 2]])).shape == (1, 2, 512)


def test_everything_is_asked_for_at_the_commit_that_the_branch_stood_for(hub: Hub, tmp_path: Path) -> None:
    fetch(LLAMA, tmp_path / "llama")
    paths = [path for path, _, _ in hub.asked if "/resolve/" in path]
    assert paths and all(f"/resolve/{COMMIT}/" in path for path in paths)


def test_hugging_faces_weights_come_in_one_format(hub: Hub, tmp_path: Path) -> None:
    fetch(LLAMA_HF, tmp_path / "llama")
    assert names(tmp_path / "llama") == ["config.json", MANIFEST, "model.safetensors", "tokenizer.model"]


def test_a_prequantized_model_is_loaded_as_it_was_stored(hub: Hub, golden: Path, tmp_path: Path) -> None:
    stored = golden / "hf-tiny-qlora/base-bnb-nf4-dq"
    hub.files["some/llama-bnb-4bit"] = {path.name: path.read_bytes() for path in stored.iterdir()}
    fetch(Repository("some/llama-bnb-4bit", "model"), tmp_path / "llama")
    assert load(tmp_path / "llama").source["weights"] == "nf4-dq"


def test_a_hat_is_fetched_in_the_files_that_are_read_of_it() -> None:
    assert (folder.CONFIG_FILE, (folder.WEIGHTS_FILE, folder.PICKLED_FILE, folder.MLX_FILE)) == (
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
    )


def test_a_hat_that_is_on_the_hub_as_a_pickle_alone_is_worn(hub: Hub, golden: Path, tmp_path: Path) -> None:
    stored, base = golden / "hf-tiny-qlora/adapter-end", golden / "hf-tiny-qlora/base"
    pickle = BytesIO()
    torch.save(load_file(stored / "adapter_model.safetensors"), pickle)
    config = (stored / "adapter_config.json").read_bytes()
    hub.files["some/hat"] = {"adapter_config.json": config, "adapter_model.bin": pickle.getvalue()}
    fetch(Repository("some/hat", "model"), tmp_path / "hat")
    assert names(tmp_path / "hat") == ["adapter_config.json", "adapter_model.bin", MANIFEST]
    fetched, ours = load(base, "fp32"), load(base, "fp32")
    load_adapter(fetched, "hat", tmp_path / "hat")
    load_adapter(ours, "hat", stored)
    pairs = zip(adapter_parameters(fetched, "hat").values(), adapter_parameters(ours, "hat").values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_data_set_comes_whole_with_its_folders(hub: Hub, tmp_path: Path) -> None:
    manifest = fetch(DATA, tmp_path / "ner")
    assert names(tmp_path / "ner") == ["README.md", "data/train-00000.parquet", MANIFEST]
    assert manifest.type == "dataset"


SHARDED = [
    "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json", "pytorch_model-00001-of-00001.bin", "tokenizer.json",
]  # fmt: skip


@pytest.mark.parametrize(
    ("present", "left_out"),
    [
        (SHARDED, {"pytorch_model-00001-of-00001.bin"}),
        ([*SHARDED, "model.safetensors"], {"pytorch_model-00001-of-00001.bin", "model.safetensors"}),
        (["params.json", *(f"consolidated.{shard:02}.pth" for shard in range(8))], set()),
        (
            [*SHARDED[:4], "params.json", "consolidated.00.pth", "original/params.json"],
            {"params.json", "consolidated.00.pth", "original/params.json"},
        ),
        (["params.json", "model.safetensors", "quantization.json"], set()),
        (["config.json", "pytorch_model.bin", "model.safetensors.index.json"], {"model.safetensors.index.json"}),
        (["config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"], set()),
        (["adapter_config.json", "adapter_model.safetensors", "training_args.bin"], {"training_args.bin"}),
        (["adapter_config.json", "adapter_model.bin", "training_args.bin"], {"training_args.bin"}),
        (["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"], {"adapter_model.bin"}),
        (["adapter_config.json", "adapters.safetensors", "README.md"], {"README.md"}),
    ],
    ids=[
        *("sharded", "sharded-and-whole", "meta-70b", "both-layouts", "quantized-here", "bin", "bin-sharded"),
        *("hat", "hat-bin", "hat-both", "hat-mlx"),
    ],
)
def test_one_format_of_weights_is_chosen(present: list[str], left_out: set[str]) -> None:
    assert needed(present, "o/n") == set(present) - left_out


@pytest.mark.parametrize("present", [[], ["config.json", "tf_model.h5"], ["params.json"], ["llama.gguf"]])
def test_weights_that_cannot_be_read_here_are_named(present: list[str]) -> None:
    found = next((name for name in present if name.endswith((".h5", ".gguf"))), "none")
    with pytest.raises(ValueError, match=f"^o/n: needs config.json and model.*its weights are {found}"):
        needed(present, "o/n")


def test_a_model_of_another_kind_is_refused_before_its_weights_come(hub: Hub, tmp_path: Path) -> None:
    config = json.loads(hub.files[LLAMA_HF.id]["config.json"])
    hub.files[LLAMA_HF.id]["config.json"] = json.dumps({**config, "model_type": "mistral"}).encode()
    with pytest.raises(ValueError, match=r"config\.json: model_type must be 'llama' or absent, got 'mistral'"):
        fetch(LLAMA_HF, tmp_path / "llama")
    hub.files[LLAMA_HF.id]["config.json"] = json.dumps(
        {**config, "quantization_config": {"quant_method": "gptq"}}
    ).encode()
    with pytest.raises(ValueError, match=r"quantization_config\.quant_method must be 'bitsandbytes', got .*gptq"):
        fetch(LLAMA_HF, tmp_path / "other")
    assert not hub.sent("model.safetensors")


def test_an_index_that_names_a_shard_too_many_is_refused_before_the_weights_come(hub: Hub, tmp_path: Path) -> None:
    files = hub.files[LLAMA_HF.id]
    files["model-00001-of-00002.safetensors"] = files.pop("model.safetensors")
    files["model.safetensors.index.json"] = json.dumps(
        {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    ).encode()
    with pytest.raises(ValueError, match=r"names model-00002-of-00002.safetensors, which the repository does not have"):
        fetch(LLAMA_HF, tmp_path / "llama")


# What goes wrong on the way


def test_a_cut_connection_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["consolidated.00.pth"] = [300_000, 200_000]
    fetch(LLAMA, tmp_path / "llama")
    assert hub.sent("consolidated.00.pth") == [None, "bytes=300000-", "bytes=500000-"]


def test_a_stopped_fetch_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["consolidated.00.pth"] = [300_000, *[0] * 10]
    with pytest.raises(
        OSError, match=r"out of reach or cut the connection \(.*\): run this again: what has come"
    ) as told:
        fetch(LLAMA, tmp_path / "llama")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "llama").exists()
    hub.cut_after.clear()
    hub.asked.clear()
    verified = fetch(LLAMA, tmp_path / "llama")
    assert hub.sent("consolidated.00.pth") == ["bytes=300000-"] and not hub.sent("params.json")
    assert verify(LLAMA, tmp_path / "llama") == verified
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_a_server_that_knows_no_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["consolidated.00.pth"] = [300_000]
    hub.ignores_range = True
    fetch(LLAMA, tmp_path / "llama")
    assert verify(LLAMA, tmp_path / "llama")


def test_what_is_left_of_a_commit_that_the_branch_has_left_is_cleared_away(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after["consolidated.00.pth"] = [300_000, *[0] * 10]
    with pytest.raises(OSError, match="out of reach"):
        fetch(LLAMA, tmp_path / "llama")
    hub.cut_after.clear()
    hub.revisions = {"main": "b" * 40, "b" * 40: "b" * 40}
    others = tmp_path / f".llama.chat.{'a' * 12}.partial"  # of the folder "llama.chat"
    others.mkdir()
    assert fetch(LLAMA, tmp_path / "llama").commit == "b" * 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [others.name, "llama"]


def test_a_hub_that_names_no_commit_is_none(hub: Hub, tmp_path: Path) -> None:
    hub.revisions["main"] = "../../elsewhere"
    with pytest.raises(OSError, match=f"{LLAMA.id} at main: the hub names no commit with files: is HF_ENDPOINT a hub"):
        fetch(LLAMA, tmp_path / "llama")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_in_which_one_stands_can_be_filled(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fetch(LLAMA, Path())
    assert "params.json" in names(tmp_path / "here")


@pytest.mark.parametrize("name", ["consolidated.00.pth", "params.json"], ids=["lfs", "git-blob"])
def test_a_corrupted_file_is_refused_by_name(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.corrupt.add(name)
    with pytest.raises(OSError, match=f"{LLAMA.id}: {name}: what came is not what the hub lists"):
        fetch(LLAMA, tmp_path / "llama")
    assert not (tmp_path / "llama").exists()
    assert name not in [path.name for path in tmp_path.rglob("*")]
    hub.corrupt.clear()
    assert fetch(LLAMA, tmp_path / "llama")


def test_metas_own_sums_are_held_against_what_came(hub: Hub, tmp_path: Path) -> None:
    hub.files[LLAMA.id]["checklist.chk"] = f"{'0' * 32}  consolidated.00.pth\n".encode()
    with pytest.raises(OSError, match=r"consolidated.00.pth: .*MD5.*Meta's own sums differ"):
        fetch(LLAMA, tmp_path / "llama")
    assert not (tmp_path / "llama").exists()


def test_a_disk_that_is_too_small_is_told_with_the_figures(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lowrank.hub.fetch.shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(OSError, match=r"0.00107 GB are to come, and 0.001 GB are free"):
        fetch(LLAMA, tmp_path / "llama")
    assert not hub.sent("params.json")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "..\\outside"])
def test_a_file_that_would_land_outside_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files[DATA.id] = {name: b"x"}
    with pytest.raises(ValueError, match="a file must lie inside the repository"):
        fetch(DATA, tmp_path / "ner")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_with_a_manifest_of_its_own_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files[DATA.id][MANIFEST] = b"{}"
    with pytest.raises(ValueError, match=r"has a manifest.json of its own"):
        fetch(DATA, tmp_path / "ner")


# Gates, tokens, names


def test_a_gate_without_a_token_names_the_steps(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add(LLAMA.id)
    steps = (
        f"^{LLAMA.id} at {COMMIT}: is gated: accept its licence at https://huggingface.co/{LLAMA.id}, "
        "run `hf auth login` .or set HF_TOKEN to a token of your account., and run this again$"
    )
    with pytest.raises(OSError, match=steps):
        fetch(LLAMA, tmp_path / "llama")


def test_a_gate_with_the_token_of_an_account_without_access_says_so(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    hub.gated.add(LLAMA.id)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(OSError, match="the account of your token has no access yet: accept its licence at https"):
        fetch(LLAMA, tmp_path / "llama")
    hub.tokens.add("hf_other")
    assert fetch(LLAMA, tmp_path / "llama").commit == COMMIT
    assert "Bearer hf_other" in {token for _, _, token in hub.asked}


@pytest.mark.parametrize("token", [None, "hf_some"])
def test_a_repository_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch, token: str | None) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=r"meta-llama/Lama at main: not found, or private: .*hf auth login"):
        fetch(Repository("meta-llama/Lama", "model"), tmp_path / "llama")


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{LLAMA.id} at v9: no such revision: pick one at https://.*/commits/main"):
        fetch(LLAMA, tmp_path / "llama", "v9")


def test_a_hub_that_is_out_of_reach(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=f"{LLAMA.id} at main: the hub is out of reach"):
        fetch(LLAMA, tmp_path / "llama")


# What is there already


def test_a_fetched_folder_is_verified_and_left_alone_without_the_network(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    first = fetch(LLAMA, tmp_path / "llama")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(LLAMA, tmp_path / "llama") == verify(LLAMA, tmp_path / "llama") == first
    assert fetch(LLAMA, tmp_path / "llama", COMMIT) == first
    assert hub.asked == []


def test_a_file_that_was_changed_is_named_and_one_that_was_removed_comes_again(hub: Hub, tmp_path: Path) -> None:
    fetch(LLAMA, tmp_path / "llama")
    weights = tmp_path / "llama/consolidated.00.pth"
    weights.write_bytes(b"\0" + weights.read_bytes()[1:])
    for check in (fetch, verify):
        with pytest.raises(OSError, match=r"consolidated.00.pth: is not the file that manifest.json names: remove it"):
            check(LLAMA, tmp_path / "llama")
    weights.unlink()
    with pytest.raises(OSError, match=r"consolidated.00.pth: is missing: fetch again"):
        verify(LLAMA, tmp_path / "llama")
    hub.asked.clear()
    hub.revisions["main"] = "b" * 40  # the branch has gone on; the folder stays where it is
    fetch(LLAMA, tmp_path / "llama")
    assert verify(LLAMA, tmp_path / "llama").commit == COMMIT
    assert not hub.sent("params.json")


def test_a_folder_of_something_else_is_not_touched(hub: Hub, tmp_path: Path) -> None:
    fetch(LLAMA, tmp_path / "llama")
    with pytest.raises(ValueError, match=rf"llama: holds {LLAMA.id} \(model\): name another folder"):
        fetch(LLAMA_HF, tmp_path / "llama")
    with pytest.raises(ValueError, match=rf"holds the revision {COMMIT} \(main\), not v2: name another folder"):
        fetch(LLAMA, tmp_path / "llama", "v2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="mine: is there, and not made by `lowrank fetch`: name a new or empty folder"):
        fetch(LLAMA, tmp_path / "mine")
    assert names(tmp_path / "mine") == ["notes.txt"]
    with pytest.raises(ValueError, match="so this folder was not made by `lowrank fetch`"):
        verify(LLAMA, tmp_path / "mine")


@pytest.mark.parametrize("content", ["{}", '{"files": {"a": {"bytes": 1}}}', '{"files": []}'])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"manifest.json: not what `lowrank fetch` writes"):
        fetch(LLAMA, tmp_path)


# The command


@pytest.mark.long
def test_the_command_by_its_environment_alone(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own: HF_ENDPOINT to fetch, then HF_HUB_OFFLINE=1 with the hub gone."""
    home = {key: value for key, value in environment().items() if not key.startswith(("HF_", "HUGGING"))}
    home["HF_HOME"] = str(tmp_path / "home")

    def lowrank(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "lowrank", "fetch", *arguments, cwd=tmp_path, env={**home, **variables}, check=False)

    done = lowrank(LLAMA.id, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert f"Llama-2-7b: {LLAMA.id} at {COMMIT} (main), 0.00 GB, whole" in done.stdout
    done = lowrank(LLAMA.id, "--json", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit"] == COMMIT
    done = lowrank(DATA.id, "--type", "dataset", "--to", "ner", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    told = f"lowrank: {DATA.id} at main: not on this disk, and HF_HUB_OFFLINE forbids the network: unset it"
    assert told in done.stderr.splitlines()


def test_the_command_verifies_and_tells_in_one_line(hub: Hub, tmp_path: Path, capsys) -> None:
    to = ["--to", str(tmp_path / "llama")]
    assert main(["fetch", LLAMA.id, *to, "--revision", COMMIT]) == 0
    assert main(["fetch", LLAMA.id, *to, "--verify"]) == 0
    (tmp_path / "llama/params.json").unlink()
    capsys.readouterr()
    assert main(["fetch", LLAMA.id, *to, "--verify"]) == 1
    assert "params.json: is missing: fetch again to get it" in capsys.readouterr().err
    assert main(["fetch", "meta-llama/Lama"]) == 2
