"""Keys and values in 8 and 4 bits: what is stored, what attention sees of it, and what it takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from draws import normal

import lowrank
from lowrank.adapters.accounting import base_items
from lowrank.cli import main
from lowrank.kernels.reference import weights as reference
from lowrank.layers.quantized_cache import FORMATS, CacheFormat, QuantizedKVCache, cache_bytes, use_cache_format
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import KVCache, Llama

CONFIG = ModelConfig(dim=128, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=256, vocab_size=64)
EVERY_FORMAT = pytest.mark.parametrize("format", FORMATS)
LEAST_STEP = {"int8": 1 / 254, "nf4": 0.152}  # half the widest gap between levels, in shares of the scale


def cache(format: CacheFormat, batch: int = 2, capacity: int = 12) -> QuantizedKVCache:
    return QuantizedKVCache(CONFIG, batch, capacity, torch.float32, torch.device("cpu"), format)


@EVERY_FORMAT
def test_each_head_at_each_position_is_a_row_with_a_scale_of_its_own(format: CacheFormat) -> None:
    kept, x = cache(format), normal(2, 2, 5, 32)
    x[1, 0, 3] *= 1000
    k, v = kept.append(1, x, -x)
    for found, given in ((k, x), (v, -x)):
        rows = reference.quantize(given.reshape(-1, 32), format, 32)
        assert torch.equal(found, reference.dequantize(rows).view(x.shape))
    scale = x.abs().amax(-1, keepdim=True)
    assert ((k - x).abs() <= LEAST_STEP[format] * scale * (1 + 1e-6)).all()


@EVERY_FORMAT
def test_a_text_is_the_same_however_its_prompt_is_cut(format: CacheFormat) -> None:
    torch.manual_seed(0)
    model = Llama(CONFIG).requires_grad_(False)
    tokens = torch.arange(20).view(2, 10) % CONFIG.vocab_size
    whole, cut = cache(format), cache(format)
    together = model.hidden(tokens, whole)
    parts = torch.cat([model.hidden(part, cut) for part in tokens.split([4, 1, 5], dim=1)], dim=1)
    assert torch.equal(whole.codes, cut.codes)
    torch.testing.assert_close(together, parts, rtol=0, atol=1e-5)  # sums of other lengths
    assert whole.length == cut.length == 10


@EVERY_FORMAT
def test_texts_are_written_with_it_and_a_model_goes_back_to_its_own(format: CacheFormat) -> None:
    model = lowrank.load("embedded", dtype=torch.float32)
    plain = list(generate_tokens(model, [[5, 6, 7]], max_new_tokens=8))
    use_cache_format(model, format)
    assert len(list(generate_tokens(model, [[5, 6, 7], [9]], max_new_tokens=8))) == 8
    use_cache_format(model, None)
    assert model.cache_type is KVCache
    assert list(generate_tokens(model, [[5, 6, 7]], max_new_tokens=8)) == plain


@EVERY_FORMAT
def test_the_bytes_are_those_that_are_planned(format: CacheFormat) -> None:
    kept = QuantizedKVCache(CONFIG, 3, 17, torch.bfloat16, torch.device("cpu"), format)
    found = kept.codes.nbytes + kept.scales.nbytes + kept.dequantized.nbytes
    assert found == cache_bytes(CONFIG, 17, format, batch=3)
    plain = KVCache(CONFIG, 3, 17, torch.bfloat16, torch.device("cpu"))
    assert plain.k.nbytes + plain.v.nbytes == cache_bytes(CONFIG, 17, None, batch=3)


def test_7b_with_4096_positions_is_below_five_gigabytes() -> None:
    config = PRESETS["7b"]
    weights = sum(item.bytes for item in base_items(config, "nf4-dq"))
    assert weights + cache_bytes(config, 4096, None) > 6.0e9
    assert weights + cache_bytes(config, 4096, "int8") < 5.05e9
    assert weights + cache_bytes(config, 4096, "nf4") < 4.6e9


def test_mistakes_are_one_line(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = lowrank.load(embedded)
    with pytest.raises(ValueError, match="cache must be one of int8, nf4, got 'fp4'"):
        use_cache_format(model, "fp4")  # type: ignore[arg-type]
    odd = Llama(ModelConfig(dim=96, n_layers=1, n_heads=4, n_kv_heads=4, hidden_dim=64, vocab_size=64))
    with pytest.raises(ValueError, match="heads of a power of two from 32, these have 24"):
        use_cache_format(odd, "nf4")
    with pytest.raises(FloatingPointError, match="values of layer 1 are not finite"):
        cache("int8").append(1, normal(2, 2, 1, 32), torch.full((2, 2, 1, 32), torch.nan))
    words = ["generate", "embedded", "--prompt", "The balance", "--max-new-tokens", "3", "--dtype", "fp32"]
    assert main([*words, "--cache", "int8"]) == 0
