"""Makes qlora-curve.safetensors: 20 QLoRA steps by transformers, peft and bitsandbytes.

    python tests/golden/make_qlora_curve.py

The base is hf-tiny-qlora/base-bnb-nf4-dq with the 4-bit codes as stored, the start hf-tiny-qlora/adapter-start. Every
product is dequantize, then float32: that is bitsandbytes' path on a CPU while a layer is in training mode.
"""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).resolve().parent
STEPS, ROWS, LENGTH, VOCABULARY = 20, 2, 48, 512


def batches() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [20, 2, 48]: a prompt of 4 to 16 tokens is masked in each row, and now and then its end."""
    generator = torch.Generator().manual_seed(20)
    tokens = torch.randint(3, VOCABULARY, (STEPS, ROWS, LENGTH), generator=generator)
    prompts = torch.randint(4, 17, (STEPS, ROWS, 1), generator=generator)
    ends = torch.randint(36, 61, (STEPS, ROWS, 1), generator=generator)
    position = torch.arange(LENGTH)
    return tokens, tokens.masked_fill((position < prompts) | (position >= ends), -100)


def main() -> None:
    torch.set_num_threads(1)
    folder = GOLDEN / "hf-tiny-qlora"
    base = AutoModelForCausalLM.from_pretrained(folder / "base-bnb-nf4-dq", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter-start", is_trainable=True).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    tokens, labels = batches()
    losses, norms = [], []
    for step in range(STEPS):
        loss = model(input_ids=tokens[step], labels=labels[step]).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 0.3))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    end = {f"end.{key}": value.contiguous() for key, value in get_peft_model_state_dict(model).items()}
    curve = {"train_tokens": tokens, "train_labels": labels}
    curve |= {"train_loss": torch.stack(losses), "train_grad_norm": torch.stack(norms)}
    save_file(curve | end, GOLDEN / "qlora-curve.safetensors")


if __name__ == "__main__":
    main()
