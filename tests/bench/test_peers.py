"""Who is there and who is not, and that each provider that is there does what its row says."""

from importlib import metadata

import pytest
import torch

from lowrank.bench import peers
from lowrank.bench.peers import PEERS, find


def only(*installed):
    """A metadata.version that knows these distributions alone."""
    known = dict(installed)

    def version(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return version


def test_a_peer_that_is_not_installed_is_absent_by_name(monkeypatch):
    monkeypatch.setattr(peers.metadata, "version", only())
    present, absent = find(PEERS)
    assert [provider.name for provider in present] == ["ours", "dense"]
    assert absent == dict.fromkeys(("bitsandbytes", "torchao", "unsloth", "liger_kernel"), "not installed")


@pytest.mark.parametrize(
    ("peer", "version", "reason"),
    [
        pytest.param("bitsandbytes", "0.49.2", "0.49.2 is installed, but at least 0.50 is needed", id="too-old"),
        pytest.param("torchao", "0.99.0", "0.99.0 is installed, but does not import", id="broken"),
        pytest.param("unsloth", "2026.1", "2026.1 is installed, but its kernels go to the stream", id="not-timed"),
    ],
)
def test_a_peer_that_cannot_be_timed_says_why(peer, version, reason, monkeypatch):
    monkeypatch.setattr(peers.metadata, "version", only((peer, version)))
    monkeypatch.setitem(peers.INSTALLABLE, "torchao", ("no.such.module", (0, 18), ()))
    _, absent = find([peer])
    assert absent[peer].startswith(reason)


def test_a_peer_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="--peers: 'flute' is none of dense, bitsandbytes"):
        find(["flute"])


@pytest.mark.parametrize("name", ["ours", "dense", "bitsandbytes", "bitsandbytes-dequantize"])
def test_a_provider_holds_a_weight_in_the_bytes_of_its_format_and_multiplies_with_it(name):
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
