"""y = x W^T with W in NF4: the inputs of a case, the plain product, and the rule that an answer is held to.

It stands alone: torch, and the `task.py` beside it, as kernel competitions have it.
M rows of x, N out_features, K in_features; W [N, K] is flattened row by row and cut into blocks.
"""

import torch
from task import input_t, output_t

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = 128  # of W that are decoded at a time to be checked: they stay in the cache
ENOUGH = 1_000  # outputs, from which on the largest error of a plain product is no luck
# QLoRA, arXiv 2305.14314, appendix E
NF4_LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def generate_input(m: int, n: int, k: int, blocksize: int, kind: str, seed: int) -> input_t:
    """(x, codes, absmax, codebook, blocksize, y), y full of NaN

    kind  normal: of random scales; where rows are whole blocks, x is zero along one column of blocks, and one of these
          blocks has an infinite maximum: 0 * infinity is NaN, which a product that skips zeros does not see
          one_hot: rows of x with a single 1, so that y has columns of W
          small_integers: x, levels and maxima whose sums have no rounding in float32, whatever their order
    """
    draws = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=draws)

    codes = torch.randint(0, 256, ((n * k + 1) // 2,), generator=draws, dtype=torch.uint8)
    blocks = -(-n * k // blocksize)
    absmax = (torch.rand(blocks, generator=draws) + 0.1) * 2.0 ** drawn(-6, 7, 1)
    codebook = torch.tensor(NF4_LEVELS)
    if kind == "normal":
        x = torch.randn(m, k, generator=draws) * 2.0 ** drawn(-6, 7, 1)
        across = k // blocksize
        if k % blocksize == 0 and across > 1 and n > 1:
            column, row = int(drawn(0, across, 1)), int(drawn(0, n, 1))
            x[:, column * blocksize : (column + 1) * blocksize] = 0
            absmax[row * across + column] = torch.inf
    elif kind == "one_hot":
        x = torch.zeros(m, k)
        x[torch.arange(m), drawn(0, k, m)] = 1
    elif kind == "small_integers":
        x = drawn(-4, 5, m, k).float()
        absmax = 2.0 ** drawn(-2, 3, blocks)
        codebook = torch.arange(-8.0, 8.0)[torch.randperm(16, generator=draws)]
    else:
        raise ValueError(f"kind must be normal, one_hot or small_integers, got {kind!r}")
    y = torch.full((m, n), torch.nan)
    x, codes, absmax, codebook, y = (tensor.to(DEVICE) for tensor in (x, codes, absmax, codebook, y))
    return x, codes, absmax, codebook, blocksize, y


def dequantize(data: input_t, first: int = 0, last: int | None = None) -> torch.Tensor:
    """W[i] = codebook[code i] * absmax[i // blocksize], one product in float32; rows first ... last - 1 of [N, K]"""
    x, codes, absmax, codebook, blocksize, y = data
    k = x.shape[1]
    start, end = first * k, (y.shape[1] if last is None else last) * k
    pairs = torch.cartesian_prod(codebook, codebook)  # the two levels of each byte
    levels = torch.index_select(pairs, 0, codes[start // 2 : (end + 1) // 2].int()).flatten()[start % 2 :]
    blocks = torch.arange(start, end, dtype=torch.int32, device=x.device) // blocksize
    return (levels[: end - start] * absmax[blocks]).view(-1, k)


def ref_kernel(data: input_t) -> output_t:
    """y = x W^T in float32, of a W that is dequantized first; [M, N]"""
    return data[0] @ dequantize(data).T


def check_implementation(data: input_t, output: output_t) -> tuple[bool, str]:
    """(True, ""), or (False, "RULE: what is wrong"), by float64

    not-finite  NaN or infinity stands in y just where the exact product has it
    exact-sums  of small integers: y is exact
    one-hot     of one-hot x: y has columns of W, bit for bit; one-hot-straddling where K is no multiple of blocksize
    product     max|y - exact| <= 2 max|plain - exact| + one ulp at max|exact|; of fewer than 1,000 outputs each
                |y - exact| <= sqrt(K) eps sum_k |w x|
    """
    x, _, _, codebook, blocksize, y = data
    if type(output) is not torch.Tensor or output.shape != y.shape or output.dtype != torch.float32:
        return False, f"plain-tensor: the answer must be a float32 torch.Tensor {tuple(y.shape)}"
    parts = []
    for first in range(0, y.shape[1], ROWS):
        w = dequantize(data, first, min(first + ROWS, y.shape[1]))
        parts.append((x.double() @ w.double().T, (x @ w.T).double(), x.double().abs() @ w.double().abs().T))
    exact, plain, magnitude = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    seen = torch.isfinite(exact)
    if wrong := int((torch.isfinite(output) != seen).sum()):
        return False, f"not-finite: {wrong} of {y.numel()} numbers are finite where x W^T is not, or the other way"
    error = torch.where(seen, output.double() - exact, 0.0).abs()
    if (codebook == codebook.round()).all() and (x == x.round()).all():
        return _equal(error, "exact-sums")
    if ((x != 0).sum(dim=1) == 1).all() and (x.sum(dim=1) == 1).all():
        return _equal(error, "one-hot" if x.shape[1] % blocksize == 0 else "one-hot-straddling")
    if int(seen.sum()) >= ENOUGH:
        largest = exact[seen].abs().max().float()
        ulp = (largest.nextafter(torch.full_like(largest, torch.inf)) - largest).double()
        allowed = (2 * torch.where(seen, plain - exact, 0.0).abs().max() + ulp).expand_as(error)
    else:
        allowed = x.shape[1] ** 0.5 * torch.finfo(torch.float32).eps * torch.where(seen, magnitude, 0.0)
    if wrong := int((error > allowed).sum()):
        at = int((error - allowed).argmax())
        found = f"the largest error is {error.flatten()[at]:.3g}, allowed {allowed.flatten()[at]:.3g}"
        return False, f"product: {wrong} of {y.numel()} numbers are off; {found}"
    return True, ""


def _equal(error: torch.Tensor, rule: str) -> tuple[bool, str]:
    wrong = int((error != 0).sum())
    return not wrong, f"{rule}: {wrong} of {error.numel()} numbers differ" if wrong else ""
