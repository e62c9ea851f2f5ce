"""A folder in 4 bits: the same model as one quantized on the way in, in its source's naming, whole or not at all."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from error_bounds import assert_logits_are_equal
from safetensors.torch import load_file, save_file

import lowrank
from lowrank.atomic_io import partial_folder, sha256_of
from lowrank.checkpoints import quantize_folder as quantizer
from lowrank.checkpoints.chunked_quantize import quantize_chunks
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.checkpoints.safetensors_writer import StreamWriter
from lowrank.model.param_names import is_block_linear, to_hf

WEIGHTS = "model.safetensors"


@pytest.fixture(params=["meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base"])
def base(request: pytest.FixtureRequest, golden: Path):
    return golden / request.param


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["nf4-dq", "nf4", "fp4", "fp4-dq", "int8"])
def test_the_folder_is_the_model_quantized_on_the_way_in(base, tmp_path: Path, weights) -> None:
    tokens = torch.arange(40).view(2, 20)
    folder = quantize_folder(base, tmp_path / "out", weights)
    written, direct = lowrank.load(folder), lowrank.load(base, weights)
    assert torch.equal(written(tokens), direct(tokens))
    assert written.source == direct.source


def test_the_codes_are_those_that_transformers_and_bitsandbytes_wrote(golden: Path, tmp_path: Path) -> None:
    ours = load_file(quantize_folder(golden / "hf-tiny-qlora/base", tmp_path / "out") / "model.safetensors")
    theirs = load_file(golden / "hf-tiny-qlora/base-bnb-nf4-dq/model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        if key.endswith(".absmax") and tensor.dtype == torch.uint8:
            assert (ours[key].int() - tensor.int()).abs().max() <= 1, key  # formats.md: a neighbouring 8-bit code
        elif "quant_state" not in key:
            assert torch.equal(ours[key].to(tensor.dtype), tensor), key
        else:
            mine, yours = (json.loads(bytes(state.tolist())) for state in (ours[key], tensor))
            assert mine["nested_offset"] == yours["nested_offset"]
            assert mine.keys() == yours.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("weights", ["nf4-dq", "nf4", "fp4-dq", "fp4"])
def test_transformers_with_bitsandbytes_loads_the_folder_and_gives_our_logits(
    golden: Path, tmp_path: Path, weights
) -> None:
    from transformers import AutoModelForCausalLM

    source = golden / "hf-tiny-qlora/base"
    wide = tmp_path / "wide"  # in float32, since transformers keeps what is not quantized in the type it is stored in
    wide.mkdir()
    save_file({key: tensor.float() for key, tensor in load_file(source / "model.safetensors").items()}, wide / WEIGHTS)
    (wide / "config.json").write_text((source / "config.json").read_text().replace('"bfloat16"', '"float32"'))
    folder = quantize_folder(wide, tmp_path / "out", weights)
    theirs = AutoModelForCausalLM.from_pretrained(folder).train()  # in training, bitsandbytes does not round W
    ours, tokens = lowrank.load(folder), torch.arange(40).view(2, 20)
    for name in filter(is_block_linear, ours.config.parameter_shapes()):
        codes = ours.get_submodule(name.removesuffix(".weight")).quantized.codes
        assert torch.equal(theirs.get_parameter(to_hf(name)).data.flatten(), codes), name
    assert_logits_are_equal(ours(tokens), theirs(tokens).logits.detach())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights", ["nf4-dq", "nf4", "fp4-dq", "fp4"])
def test_a_folder_of_transformers_with_bitsandbytes_is_loaded_as_it_is(
    golden: Path, tmp_path: Path, weights, storage
) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    base, theirs = golden / "hf-tiny-qlora/base", tmp_path / "theirs"
    format, _, nested = weights.partition("-")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=format,
        bnb_4bit_use_double_quant=bool(nested),
        bnb_4bit_quant_storage=storage,
    )
    AutoModelForCausalLM.from_pretrained(base, quantization_config=config).save_pretrained(theirs)
    read, ours = lowrank.load(theirs), lowrank.load(base, weights)
    assert read.source == ours.source
    stored = load_file(theirs / WEIGHTS)
    for name in filter(is_block_linear, ours.config.parameter_shapes()):
        layers = [model.get_submodule(name.removesuffix(".weight")).quantized.tensors() for model in (read, ours)]
        assert torch.equal(layers[0]["codes"], layers[1]["codes"]), name
        assert torch.equal(layers[0]["codes"], stored[to_hf(name)].flatten().view(torch.uint8)), name
        for part in layers[0].keys() - {"codes"}:
            if nested and part == "absmax":  # formats.md: a neighbouring 8-bit code
                assert (layers[0][part].int() - layers[1][part].int()).abs().max() <= 1, name
            else:
                assert torch.equal(layers[0][part], layers[1][part]), (name, part)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_transformers_with_bitsandbytes_loads_several_files(golden: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = golden / "hf-tiny-qlora/base"
    one, many = quantize_folder(base, tmp_path / "one"), quantize_folder(base, tmp_path / "many", max_file_bytes=1e5)
    tokens = torch.arange(40).view(2, 20)
    assert len(list(many.glob("model-*.safetensors"))) > 2
    assert torch.equal(lowrank.load(many)(tokens), lowrank.load(one)(tokens))
    logits = [AutoModelForCausalLM.from_pretrained(folder)(tokens).logits for folder in (one, many)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("max_file_bytes", [5e9, 1e5])
def test_the_manifest_holds_the_hash_of_every_file(base, tmp_path: Path, max_file_bytes) -> None:
    source = tmp_path / "base"
    shutil.copytree(base, source)
    (source / "tokenizer_config.json").write_text("{}")
    folder = quantize_folder(source, tmp_path / "out", max_file_bytes=max_file_bytes)
    manifest = json.loads((folder / "quantization.json").read_text())
    assert manifest["weights"] == "nf4-dq"
    assert manifest["sha256"] == {
        path.name: sha256_of(path) for path in folder.iterdir() if path.name != "quantization.json"
    }
    assert {"tokenizer_config.json", "config.json" if "hf" in str(base) else "params.json"} < manifest["sha256"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError], ids=lambda stop: stop.__name__)
def test_what_was_interrupted_is_gone_on_with(base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop) -> None:
    whole = quantize_folder(base, tmp_path / "whole", max_file_bytes=2e5)
    calls = []

    def stopped(value, *rest):
        calls.append(rest)
        if len(calls) == 6:
            raise stop("in the middle")
        return quantize_chunks(value, *rest)

    monkeypatch.setattr(quantizer, "quantize_chunks", stopped)
    with pytest.raises(stop, match="in the middle"):
        quantize_folder(base, tmp_path / "out", max_file_bytes=2e5)
    assert not (tmp_path / "out").exists()
    assert partial_folder(tmp_path / "out").is_dir()
    out = quantize_folder(base, tmp_path / "out", max_file_bytes=2e5)
    assert len(calls) == 14 + 1  # seven linears in each of two blocks; the one that was stopped came twice
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize("change", ["weights", "base"])
def test_other_work_is_not_gone_on_with(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change) -> None:
    source = Path(shutil.copytree(golden / "meta-tiny-mha", tmp_path / "base"))
    with monkeypatch.context() as patched:
        patched.setattr(StreamWriter, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantize_folder(source, tmp_path / "out")
    if change == "base":
        tensors = torch.load(source / "consolidated.00.pth", weights_only=True)
        torch.save({name: tensor * 2 for name, tensor in tensors.items()}, source / "consolidated.00.pth")
    weights = "fp4-dq" if change == "weights" else "nf4-dq"
    out, direct = (quantize_folder(source, tmp_path / name, weights) for name in ("out", "direct"))
    assert (out / WEIGHTS).read_bytes() == (direct / WEIGHTS).read_bytes()


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def small_files():
    """A limit on the size of files, as a full disk would be one: a write beyond it fails."""
    resource = pytest.importorskip("resource", reason="POSIX limits")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_nothing_under_the_final_name(base, tmp_path: Path, small_files) -> None:
    small_files(200_000)
    with pytest.raises(OSError, match="File too large"):
        quantize_folder(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("tensors", [0, 5])
def test_a_disk_that_fills_up_while_weights_are_written(
    base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensors
) -> None:
    written = []

    def write(self, group):
        if len(written) == tensors:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(group)
        return whole_write(self, group)

    whole_write = StreamWriter.write
    with monkeypatch.context() as patched:
        patched.setattr(StreamWriter, "write", write)
        with pytest.raises(OSError, match="No space left"):
            quantize_folder(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert quantize_folder(base, tmp_path / "out").is_dir()


def test_a_disk_with_too_little_room_is_told_before_the_work(
    base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(quantizer, "quantize_chunks", interrupt)
    with pytest.raises(OSError, match=r"0\.00 GB more are needed, the disk has 0\.00 GB free"):
        quantize_folder(base, tmp_path / "out")


def test_what_cannot_be_replaced_is_told_before_the_work(base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    monkeypatch.setattr(quantizer, "quantize_chunks", interrupt)
    with pytest.raises(ValueError, match=r"holds mine.txt, which would be lost"):
        quantize_folder(base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_quantized_folder_is_not_quantized_again(base, tmp_path: Path) -> None:
    folder = quantize_folder(base, tmp_path / "out")
    with pytest.raises(ValueError, match="already quantized"):
        quantize_folder(folder, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_precision_format_is_refused(base, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights must be one of int8, nf4.*got 'fp32'"):
        quantize_folder(base, tmp_path / "out", "fp32")


def test_nothing_is_left_when_a_weight_is_not_finite(golden: Path, tmp_path: Path) -> None:
    source = tmp_path / "base"
    source.mkdir()
    (source / "params.json").write_text((golden / "meta-tiny-mha/params.json").read_text())
    tensors = torch.load(golden / "meta-tiny-mha/consolidated.00.pth", weights_only=True)
    tensors["layers.1.attention.wo.weight"][3, 5] = float("nan")
    torch.save(tensors, source / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.wo\.weight: .* finite, got nan at \[3, 5\]"):
        quantize_folder(source, tmp_path / "out")
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["base"]
