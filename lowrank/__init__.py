"""LoRA, 4-bit NF4 and Llama 2, written out by hand in torch."""

__version__ = "0.1.0"
