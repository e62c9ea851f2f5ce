"""Keys of tensors that are no part of a Llama in the names of its files, and whose they are."""

import re

from .config import RopeLayout

# A part of a key -> what has such keys. The first that is found is told.
_MARKS = (
    (r"^_orig_mod\.", "saved from a module that torch.compile wrapped: take the prefix _orig_mod. off"),
    (r"^module\.", "saved from a module that torch's DistributedDataParallel wrapped: take the prefix module. off"),
    (r"^base_model\.|\.base_layer\.|\.lora_[AB]\b", "of a model with a hat of PEFT's on it: save base and hat apart"),
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ's or AWQ's"),
    (r"\.weight_packed$|\.weight_shape$", "of compressed-tensors"),
    (r"\.(weight_scale(_inv)?|input_scale|[kv]_scale)$", "of weights in FP8, or of another quantizer"),
    (r"\.(scales|biases)$", "of weights that MLX or another program quantized"),
    (r"\.bias$", "a bias, and a Llama's linears have none"),
    (r"\.(qkv_proj|gate_up_proj|query_key_value|Wqkv|c_attn)\.", "of a model whose projections are fused"),
    (r"\.(q_norm|k_norm)\.", "of a model that normalizes queries and keys"),
    (r"\.(block_sparse_moe|experts|router)\.", "of a mixture of experts"),
    (r"^(transformer|gpt_neox|encoder|decoder|bert)\.", "of a model that is no Llama"),
    (r"vision|visual|image|multi_modal|audio", "of a model that sees or hears"),
    (r"\.(sa_norm|mlp_norm)\.scale$|\.attn\.|^norm\.scale$", "torchtune's: let its checkpointer write Hugging Face's"),
    (r"^(embed_tokens|layers|norm)\b", "of a LlamaModel that was saved without its output head"),
)


# A key in the names of the other kind of folder, by the layout of the one that it is in.
_OTHER_NAMES = {
    "half": (
        r"^(tok_embeddings|norm|output|layers\.\d+\.(attention|feed_forward|ffn_norm))\.",
        "Meta's, whose config is params.json",
    ),
    "interleaved": (r"^(model\.|lm_head\.)", "Hugging Face's, whose config is config.json"),
}


def whose_key(key: str, layout: RopeLayout) -> str:
    """ " (what has such a key)" in a folder of this layout, or nothing if it is not known."""
    marks = (_OTHER_NAMES[layout], *_MARKS)
    return next((f" ({words})" for mark, words in marks if re.search(mark, key)), "")
