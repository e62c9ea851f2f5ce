"""Who is there and who is not, and that each provider that is there does what its row says."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from lowrank.bench.kernels import gpu_peers, peers
from lowrank.bench.kernels.peers import PEERS, find


def only(*installed):
    """A metadata.version that knows these distributions alone."""
    known = dict(installed)

    def version(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return version


def test_a_peer_that_is_not_installed_is_absent_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.metadata, "version", only())
    present, absent = find(PEERS)
    assert [provider.name for provider in present] == ["ours", "dense"]
    assert absent == dict.fromkeys(("bitsandbytes", "torchao", "unsloth", "vllm", "liger_kernel"), "not installed")


@pytest.mark.parametrize(
    ("peer", "version", "reason"),
    [
        pytest.param("bitsandbytes", "0.49.2", "0.49.2 is installed, but at least 0.50 is needed", id="too-old"),
        pytest.param("torchao", "0.99.0", "0.99.0 is installed, but does not import", id="broken"),
        pytest.param("liger_kernel", "0.8.5", "0.8.5 is installed, but it has no 4-bit product", id="not-timed"),
    ],
)
def test_a_peer_that_cannot_be_timed_says_why(peer, version, reason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.metadata, "version", only((peer, version)))
    monkeypatch.setitem(peers.INSTALLABLE, "torchao", ("no.such.module", (0, 18), ()))
    _, absent = find([peer])
    assert absent[peer].startswith(reason)


def test_a_peer_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="--peers: 'flute' is none of dense, bitsandbytes"):
        find(["flute"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours", "dense", "bitsandbytes", "bitsandbytes-dequantize"])
def test_a_provider_holds_a_weight_in_the_bytes_of_its_format_and_multiplies_with_it(name) -> None:
    provider = next(provider for provider in find(PEERS)[0] if provider.name == name)
    generator = torch.Generator().manual_seed(0)
    w, x = (torch.randn(size, generator=generator).bfloat16() for size in ((96, 128), (3, 128)))
    held = provider.hold(w)
    assert provider.stored_bytes(held) == (96 * 128 // 2 + 192 + 4 + 4 if provider.four_bit else 2 * 96 * 128)
    dense = provider.dequantize(held, torch.float32)
    assert dense.shape == w.shape and dense.dtype == torch.float32
    with torch.no_grad():
        y = provider.linear(held, x)
    assert y.shape == (3, 96) and y.dtype == torch.bfloat16
    assert (y.float() - x.float() @ dense.T).norm() < 0.02 * y.float().norm()


def test_a_peer_that_finds_no_gpu_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name):
        raise NotImplementedError("Unsloth cannot find\n any GPU")

    monkeypatch.setattr(peers.metadata, "version", only(("unsloth", "2026.1")))
    monkeypatch.setattr(peers, "import_module", fails)
    _, absent = find(["unsloth"])
    assert absent == {"unsloth": "2026.1 is installed, but does not import: Unsloth cannot find any GPU"}


@pytest.mark.slow
def test_unsloth_goes_by_its_own_two_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a stand-in for its kernels: which one is called with what, not what they compute."""
    called = []

    def fast_gemv(x, w, state):
        called.append("gemv")
        return x @ bitsandbytes.functional.dequantize_4bit(w, state).to(x.dtype).T

    def fast_dequantize(w, state):
        called.append("dequantize")
        return bitsandbytes.functional.dequantize_4bit(w, state)

    bitsandbytes = pytest.importorskip("bitsandbytes")
    provider = gpu_peers.Unsloth(SimpleNamespace(fast_gemv=fast_gemv, fast_dequantize=fast_dequantize))
    w = torch.randn(96, 128).bfloat16()
    held = provider.hold(w)
    for m in (1, 3):
        assert provider.linear(held, torch.ones(m, 128).bfloat16()).shape == (m, 96)
    assert called == ["gemv", "dequantize"] and not provider.captured


def test_marlin_goes_by_vllms_own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a stand-in with the signatures of vLLM: W arrives as [K, N] and x W^T comes back."""

    def marlin_quantize(w, quant_type, group_size, act_order):
        assert (quant_type, group_size, act_order) == ("uint4b8", 64, False)
        codes, scales = torch.zeros(8, 192, dtype=torch.int32), torch.zeros(2, 96, dtype=w.dtype)
        return [w.contiguous(), codes, scales, torch.empty(0), torch.empty(0), torch.empty(0)]

    def apply_gptq_marlin_linear(*, input, weight, output_size_per_partition, input_size_per_partition, **rest):
        assert set(rest) == {
            *("weight_scale", "weight_zp", "g_idx", "g_idx_sort_indices", "workspace", "wtype", "is_k_full")
        }
        assert weight.dtype == torch.int32 and (input_size_per_partition, output_size_per_partition) == (128, 96)
        return input @ held.reference

    utils = SimpleNamespace(
        apply_gptq_marlin_linear=apply_gptq_marlin_linear,
        marlin_make_workspace_new=lambda device: torch.zeros(1, device=device),
        marlin_make_empty_g_idx=lambda device: torch.empty(0, device=device),
    )
    monkeypatch.setitem(sys.modules, "marlin_utils", utils)
    library = SimpleNamespace(
        __name__="marlin_utils_test", marlin_quantize=marlin_quantize, scalar_types=SimpleNamespace(uint4b8="uint4b8")
    )
    provider = gpu_peers.Marlin(library)
    w, x = torch.randn(96, 128), torch.randn(3, 128)
    held = provider.hold(w)
    assert provider.stored_bytes(held) == 4 * 8 * 192 + 4 * 2 * 96
    assert torch.equal(provider.dequantize(held, torch.float32), w)
    torch.testing.assert_close(provider.linear(held, x), x @ w.T)
