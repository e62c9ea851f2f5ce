"""The table of docs/checkpoints.md, a test a row."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lowrank
from lowrank.checkpoints.safetensors_writer import StreamWriter
from lowrank.cli import main
from lowrank.model.config import RopeScaling

ROOT = Path(__file__).resolve().parents[3]
TOKENS = torch.arange(40).view(2, 20)
WQ, HF_WQ = "layers.1.attention.wq.weight", "model.layers.1.self_attn.q_proj.weight"

Damage = Callable[[Path], object]


def params(**changes: object) -> Damage:
    return lambda folder: edit(folder / "params.json", changes)


def config(**changes: object) -> Damage:
    return lambda folder: edit(folder / "config.json", changes)


def edit(path: Path, changes: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pth(number: int, **changes: torch.Tensor | float) -> Damage:
    """Other tensors in a shard; a number is added to what is there."""

    def damage(folder: Path) -> None:
        path = folder / f"consolidated.{number:02}.pth"
        tensors = torch.load(path, weights_only=True)
        for name, value in changes.items():
            tensors[name] = value if isinstance(value, torch.Tensor) else tensors[name] + value
        torch.save(tensors, path)

    return damage


def safetensors(drop: str = "", **changes: torch.Tensor) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors") | changes
        tensors.pop(drop, None)
        save_file(tensors, folder / "model.safetensors")

    return damage


def truncate(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:5000])


def another_shape(folder: Path) -> None:
    shutil.copyfile(folder.parent / "golden/meta-tiny-mha/consolidated.00.pth", folder / "consolidated.01.pth")


def large_header(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.write((100_000_001).to_bytes(8, "little"))


def index(file: str) -> Damage:
    text = json.dumps({"weight_map": {HF_WQ: file}})
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def single_beside_shards(folder: Path) -> None:
    index("a.safetensors")(folder)
    shutil.copyfile(folder / "model.safetensors", folder / "a.safetensors")


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476850247\n"
    (folder / "model.safetensors").write_text(text)


def twice(folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", folder / "a.safetensors")
    files = {"one": "model.safetensors", "other": "a.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


class Executed:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("executed",)


def code(folder: Path) -> None:
    torch.save({"norm.weight": Executed()}, folder / "consolidated.00.pth")


META, HF, QUANTIZED = "meta-tiny-gqa-mp2", "hf-tiny-qlora/base", "hf-tiny-qlora/base-bnb-nf4-dq"

# Row of the table -> the folder that is damaged, the damage, and what is said.
REFUSED: dict[str, tuple[str, Damage, str]] = {
    "`rope_scaling` of another kind: dynamic, yarn, longrope": (
        HF, config(rope_scaling={"type": "dynamic", "factor": 2.0}), "must be one of default, linear, llama3, got 'd"),
    "`rope_parameters` of another kind": (
        HF, config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "rope_type must be one of default, line"),
    "`attention_bias`": (HF, config(attention_bias=True), "attention_bias must be False"),
    "`mlp_bias`": (HF, config(mlp_bias=True), "mlp_bias must be False"),
    "`head_dim` that the weights do not have": (
        HF, config(head_dim=64), r"attention.w..weight must have shape \[256, 128\]"),
    "`head_dim` that is odd": (HF, config(head_dim=31), "head_dim must be an even number of 2 or more, got 31"),
    "`sliding_window`": (HF, config(sliding_window=4096), "sliding_window must be None"),
    "`hidden_act` other than silu": (HF, config(hidden_act="gelu"), "hidden_act must be 'silu'"),
    "another architecture": (HF, config(architectures=["Qwen2ForCausalLM"]), "architectures must be"),
    "`quantization_config` of another method": (
        HF, config(quantization_config={"quant_method": "gptq"}), "quant_method must be 'bitsandbytes'"),
    "a key of `params.json` that is not known": (META, params(qk_norm=True), "unknown key 'qk_norm'"),
    "a shard is missing": (META, lambda folder: (folder / "consolidated.01.pth").unlink(), "a shard is missing"),
    "a shard too many": (
        META, lambda base: shutil.copyfile(base / "consolidated.01.pth", base / "consolidated.02.pth"), "too many"),
    "shards of models of different shapes": (META, another_shape, "shards of different models: "),
    "shards of models of the same shape": (META, pth(1, **{"norm.weight": 1.0}), "norm.weight: .*the copies differ"),
    "a truncated `.pth`": (META, truncate("consolidated.01.pth"), "consolidated.01.pth: not a whole .pth file"),
    "a `.pth` that holds code": (META, code, "must hold tensors only"),
    "a truncated safetensors file": (HF, truncate("model.safetensors"), "not a whole safetensors file"),
    "a safetensors header over its limit of 100 MB": (HF, large_header, "model.safetensors: .*header too large"),
    "an index that leads out of its folder": (
        HF, index("../../x.safetensors"), "a shard must be a plain file name, got '../../x.safetensors'"),
    "one file of weights beside the shards of an index": (
        HF, single_beside_shards, "holds model.safetensors and a.safetensors, which may be two models"),
    "a pointer of Git LFS in place of a file": (HF, pointer, "model.safetensors: .*it is a pointer of Git LFS"),
    "a tensor is missing": (HF, safetensors(drop=HF_WQ), f"{WQ} is missing"),
    "a tensor that is none of a Llama's": (
        HF, safetensors(**{"visual.patch.weight": torch.ones(2)}), "visual.patch.weight is no tensor of a Llama"),
    "a tensor in two files": (HF, twice, "stands in another file as well"),
    "a tensor of another shape": (HF, safetensors(**{HF_WQ: torch.zeros(64, 128)}), r"must have shape \[128, 128\]"),
    "a weight stored as integers without scales": (
        HF, safetensors(**{HF_WQ: torch.zeros(128, 128, dtype=torch.int8)}), f"{WQ} must be stored as float32"),
    "a weight in FP8": (
        HF, safetensors(**{HF_WQ: torch.zeros(128, 128, dtype=torch.float8_e4m3fn)}),
        f"{WQ} must be stored as float32, bfloat16 or float16, got torch.float8_e4m3fn"),
    "statistics in another type": (
        QUANTIZED, safetensors(**{f"{HF_WQ}.nested_absmax": torch.ones(1).half()}),
        f"{HF_WQ}.nested_absmax must be stored as torch.float32, got torch.float16"),
    "statistics that belong to no weight": (
        QUANTIZED, safetensors(**{"model.other.weight.absmax": torch.ones(2)}), "absmax belongs to no weight"),
    "a quantized embedding": (
        QUANTIZED, safetensors(**{"model.embed_tokens.SCB": torch.ones(512)}), "embeddings.weight is stored quantized; "
        "only"),
    "a scale for an output head that has none": (
        QUANTIZED, safetensors(**{"lm_head.SCB": torch.ones(512)}), "lm_head.weight must be stored as torch.int8"),
    "a weight that is NaN or infinite": (
        META, pth(0, **{WQ: torch.inf}), f"{WQ}: weights must be finite, got inf"),
    "a norm, an embedding or a head that is NaN or infinite": (
        HF, safetensors(**{"lm_head.weight": torch.full((512, 128), torch.nan)}),
        r"output.weight: weights must be finite, got nan at \[0, 0\]"),
    "a tensor whose key has a prefix": (
        HF, safetensors(**{f"_orig_mod.{HF_WQ}": torch.ones(2)}), f"_orig_mod.{HF_WQ} is no tensor .*torch.compile"),
}  # fmt: skip


def copied(base: str, golden: Path, tmp_path: Path) -> Path:
    (tmp_path / "golden").symlink_to(golden)
    return Path(shutil.copytree(golden / base, tmp_path / "base"))


@pytest.mark.slow
@pytest.mark.parametrize("row", REFUSED)
def test_refused_in_one_line(row: str, golden: Path, tmp_path: Path, capsys) -> None:
    base, damage, said = REFUSED[row]
    folder = copied(base, golden, tmp_path)
    damage(folder)
    with pytest.raises(ValueError, match=said):
        lowrank.load(folder, None if base == QUANTIZED else "nf4-dq")
    assert main(["quantize", str(folder), str(tmp_path / "out")]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("lowrank: "))
    assert re.search(said, line) and str(folder) in line
    assert not (tmp_path / "out").exists()


def rope_theta(golden: Path, tmp_path: Path) -> None:
    old, new = (shutil.copytree(golden / HF, tmp_path / name) for name in ("old", "new"))
    source = json.loads((old / "config.json").read_text())
    source = {key: value for key, value in source.items() if key not in ("rope_theta", "rope_parameters")}
    (old / "config.json").write_text(json.dumps(source | {"rope_theta": 5e5}))
    (new / "config.json").write_text(
        json.dumps(source | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    )
    usual, *others = (lowrank.load(folder, "fp32")(TOKENS) for folder in (golden / HF, old, new))
    assert torch.equal(*others)
    assert not torch.allclose(usual, others[0], atol=1e-3)


def scaled_rope(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    config(rope_scaling={"type": "linear", "factor": 4.0})(folder)
    assert not torch.allclose(
        lowrank.load(folder, "fp32")(TOKENS), lowrank.load(golden / HF, "fp32")(TOKENS), atol=1e-3
    )


def use_scaled_rope(golden: Path, tmp_path: Path) -> None:
    folder = copied(META, golden, tmp_path)
    params(use_scaled_rope=True)(folder)
    assert lowrank.load(folder, "fp32").config.rope_scaling == RopeScaling("llama3", 32.0)


def headless(golden: Path, tmp_path: Path) -> None:
    folder = copied(META, golden, tmp_path)
    for path in sorted(folder.glob("*.pth")):
        tensors = torch.load(path, weights_only=True)
        del tensors["output.weight"]
        torch.save(tensors, path)
    with pytest.raises(ValueError, match=r"output\.weight is missing"):
        lowrank.load(folder, "fp32")
    params(use_scaled_rope=True)(folder)
    model = lowrank.load(folder, "fp32")
    assert model.config.tie_embeddings and model.output.weight is model.tok_embeddings.weight


def tied(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    config(tie_word_embeddings=True)(folder)
    safetensors(drop="lm_head.weight")(folder)
    model = lowrank.load(folder, "fp32")
    assert model.output.weight is model.tok_embeddings.weight


def own_head(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    config(tie_word_embeddings=True)(folder)
    with pytest.warns(UserWarning, match="hold another head: that is used"):
        model = lowrank.load(folder, "fp32")
    assert torch.equal(model(TOKENS), lowrank.load(golden / HF, "fp32")(TOKENS))
    safetensors(**{"lm_head.weight": load_file(folder / "model.safetensors")["model.embed_tokens.weight"]})(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lowrank.load(folder, "fp32")
    assert model.output.weight is model.tok_embeddings.weight


def both_configs(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    shutil.copyfile(golden / META / "params.json", folder / "params.json")
    with pytest.warns(UserWarning, match="holds both params.json and config.json"):
        model = lowrank.load(folder, "fp32")
    assert torch.equal(model(TOKENS), lowrank.load(golden / HF, "fp32")(TOKENS))


def dead_index(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    index("model-00001-of-00002.safetensors")(folder)
    with pytest.warns(
        UserWarning, match="model-00001-of-00002.safetensors of an index is missing, and pytorch_model.bin"
    ):
        model = lowrank.load(folder, "fp32")
    assert torch.equal(model(TOKENS), lowrank.load(golden / HF, "fp32")(TOKENS))


def nested(golden: Path, tmp_path: Path) -> None:
    folder = copied(META, golden, tmp_path)
    (folder / "params.json").write_text(json.dumps({"model": json.loads((folder / "params.json").read_text())}))
    assert torch.equal(lowrank.load(folder, "fp32")(TOKENS), lowrank.load(golden / META, "fp32")(TOKENS))


def vocabulary(golden: Path, tmp_path: Path) -> None:
    folder = copied(META, golden, tmp_path)
    params(vocab_size=-1)(folder)
    assert torch.equal(lowrank.load(folder, "fp32")(TOKENS), lowrank.load(golden / META, "fp32")(TOKENS))


def norm_eps(golden: Path, tmp_path: Path) -> None:
    folder = copied(META, golden, tmp_path)
    params(norm_eps=1e-6)(folder)
    with pytest.warns(UserWarning, match=r"params.json: norm_eps is 1e-06 and is taken as it stands"):
        model = lowrank.load(folder, "fp32")
    assert model.norm.eps == 1e-6


def unknown_key(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    config(router_jitter=0.1)(folder)
    with pytest.warns(UserWarning, match="'router_jitter' is not known"):
        lowrank.load(folder, "fp32")


def positions(golden: Path, tmp_path: Path) -> None:
    folder = copied(HF, golden, tmp_path)
    config(max_position_embeddings=20)(folder)
    model = lowrank.load(folder, "fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(TOKENS)
    with pytest.warns(UserWarning, match="trained on 20 positions, and is asked for more"):
        model(torch.arange(21)[None])


HONOURED_OR_TOLD: dict[str, Callable[[Path, Path], None]] = {
    "`rope_theta`, in either place where `config.json` has it": rope_theta,
    "`rope_scaling`, linear or llama3": scaled_rope,
    "`use_scaled_rope`": use_scaled_rope,
    "`tie_word_embeddings`": tied,
    "an output head that is missing in Meta's files of Llama 3.2": headless,
    '`params.json` nested under `"model"`': nested,
    "`vocab_size` of -1": vocabulary,
    "`norm_eps` of 1e-6 in a Llama 2 file": norm_eps,
    "a key of `config.json` that is not known": unknown_key,
    "positions past the trained length": positions,
    "a stored head beside `tie_word_embeddings`": own_head,
    "both `params.json` and `config.json`": both_configs,
    "an index whose files are gone": dead_index,
}


@pytest.mark.slow
@pytest.mark.parametrize("row", HONOURED_OR_TOLD)
def test_honoured_or_told(row: str, golden: Path, tmp_path: Path) -> None:
    HONOURED_OR_TOLD[row](golden, tmp_path)


CHECKLIST, FULL_DISK = "a file that is not the one in `checklist.chk`", "a full disk"


def test_a_file_that_is_not_the_one_in_the_checklist(golden: Path, tmp_path: Path, capsys) -> None:
    folder = copied(META, golden, tmp_path)
    command = ["quantize", str(folder), str(tmp_path / "out"), "--verify"]
    assert main(command) == 2
    assert "holds no checklist.chk" in capsys.readouterr().err
    (folder / "checklist.chk").write_text("d41d8cd98f00b204e9800998ecf8427e  consolidated.01.pth\n")
    assert main(command) == 2
    assert "consolidated.01.pth: has the MD5 sum" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["model.norm.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_force_takes_a_base_with_nan_that_is_not_to_be_quantized_and_names_the_tensor(
    key: str, golden: Path, tmp_path: Path
) -> None:
    folder = copied(HF, golden, tmp_path)
    values = load_file(folder / "model.safetensors")[key]
    values.view(-1)[7] = torch.nan
    safetensors(**{key: values})(folder)
    with pytest.warns(UserWarning, match=r"weights must be finite, got nan at \[.*7\].*: taken all the same"):
        model = lowrank.load(folder, "fp32", force=True)
    assert sum(int(parameter.isnan().sum()) for parameter in [*model.parameters(), *model.buffers()]) == 1
    if "layers" in key and "norm" not in key:
        with pytest.raises(ValueError, match="quantized weights must be finite"), pytest.warns(UserWarning):
            lowrank.load(folder, "nf4", force=True)


def test_a_full_disk(golden: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    command = ["quantize", str(golden / META), str(tmp_path / "out"), "--json"]
    with monkeypatch.context() as patched:
        patched.setattr(StreamWriter, "write", lambda *_: exec("raise OSError(28, 'No space left on device')"))
        assert main(command) == 1
    err = capsys.readouterr().err
    assert "out is not finished: the same command goes on where it was" in err
    assert "lowrank: [Errno 28] No space left on device" in err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["model.safetensors"]


def test_every_row_of_the_table_is_tested() -> None:
    text = (ROOT / "docs/checkpoints.md").read_text().partition("## Nothing silently wrong")[2]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert sorted(rows[1:]) == sorted([*REFUSED, *HONOURED_OR_TOLD, CHECKLIST, FULL_DISK])
