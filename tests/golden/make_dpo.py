"""Makes dpo.safetensors: DPO steps by TRL's DPOTrainer (trl, transformers, peft), the loss and gradients of each.

    python tests/golden/make_dpo.py        (trl 1.16.0; it is in no extra of this package)

The base is hf-tiny-qlora/base in float32. Two runs of STEPS steps of AdamW. In "base" the hat is new to TRL, which then
takes the base alone as the reference, and has the numbers of adapter-start; in "hat" it is adapter-end, of which TRL
keeps a frozen copy as the reference.
"""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

GOLDEN = Path(__file__).resolve().parent
STEPS, PAIRS, LENGTH, VOCABULARY, BETA, LR = 4, 3, 40, 512, 0.3, 5e-3
STARTS = {"base": "adapter-start", "hat": "adapter-end"}
MEASURES = {"margin": "rewards/margins", "accuracy": "rewards/accuracies", "chosen": "rewards/chosen"}


def batches() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [STEPS, 2 PAIRS, LENGTH], the chosen first: a shared prompt, and answers of any length."""
    generator = torch.Generator().manual_seed(20)
    tokens = torch.randint(3, VOCABULARY, (STEPS, 2, PAIRS, LENGTH), generator=generator)
    prompts = torch.randint(4, 17, (STEPS, 1, PAIRS, 1), generator=generator)
    ends = torch.randint(22, LENGTH + 1, (STEPS, 2, PAIRS, 1), generator=generator)
    position = torch.arange(LENGTH)
    tokens = torch.where(position < prompts, tokens[:, :1], tokens)
    tokens = tokens.masked_fill(position >= ends, 0)
    labels = tokens.masked_fill((position < prompts) | (position >= ends), -100)
    return tokens.flatten(1, 2), labels.flatten(1, 2)


def trainer_of(start: str, out: str) -> DPOTrainer:
    """TRL's trainer of one start; its data are of no matter here."""
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "hf-tiny-qlora" / "base", dtype=torch.float32)
    folder = GOLDEN / "hf-tiny-qlora" / STARTS[start]
    hat = PeftConfig.from_pretrained(folder) if start == "base" else None
    if hat:
        hat.inference_mode = False
    model = base if hat else PeftModel.from_pretrained(base, folder, is_trainable=True)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="w2", pad_token="w0", bos_token="w1")
    data = Dataset.from_list([{"prompt": "w5 ", "chosen": "w6", "rejected": "w7"}])
    settings = DPOConfig(out, beta=BETA, use_cpu=True, report_to=[], gradient_checkpointing=False, bf16=False)
    trainer = DPOTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer, peft_config=hat)
    if hat:
        set_peft_model_state_dict(trainer.model, load_file(folder / "adapter_model.safetensors"))
    assert ("ref" in trainer.model.peft_config) == (start == "hat")
    return trainer


def run(start: str, out: str, tokens: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Losses and measures of every step, and the gradients of the second."""
    trainer = trainer_of(start, out)
    model = trainer.model.train()
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses, found = [], {}
    for step in range(STEPS):
        inputs = {
            "input_ids": tokens[step],
            "attention_mask": (tokens[step] != 0).long(),
            "completion_mask": (labels[step] != -100).long(),
        }
        loss = trainer._compute_loss(model, inputs, False)
        loss.backward()
        if step == 1:  # both matrices have one
            for name, parameter in parameters.items():
                found[f"{start}.grad.{name.replace('.default.', '.')}"] = parameter.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    found[f"{start}.loss"] = torch.stack(losses)
    for name, key in MEASURES.items():
        found[f"{start}.{name}"] = torch.tensor(trainer._metrics["train"][key], dtype=torch.float64)
    return found


def main() -> None:
    torch.set_num_threads(1)
    tokens, labels = batches()
    found = {"tokens": tokens, "labels": labels}
    with TemporaryDirectory() as out:
        for start in STARTS:
            found |= run(start, out, tokens, labels)
    about = {name: version(name) for name in ("trl", "transformers", "peft", "torch")}
    about |= {"beta": str(BETA), "lr": str(LR), "loss_type": "sigmoid"}
    save_file(found, GOLDEN / "dpo.safetensors", metadata=about)


if __name__ == "__main__":
    main()
