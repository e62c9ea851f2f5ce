"""The keys of Hugging Face's `config.json`, by what a value of theirs means for a Llama."""

# Refused unless they have a value that leaves the mathematics of a Llama as it is: the first one, or one that says the
# same in other words.
HF_FIXED: dict[str, tuple[object, ...]] = {
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1.0),
    "final_logit_softcapping": (None,),
    "hidden_act": ("silu", "swish"),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "mlp_bias": (False,),
    "model_type": ("llama",),
    "num_local_experts": (None,),
    "partial_rotary_factor": (1.0,),
    "qk_layernorm": (False,),
    "qk_norm": (False,),
    "quantization": (None,),  # of MLX
    "residual_multiplier": (None, 1.0),
    "rope_interleaved": (False,),
    "sliding_window": (None,),
    "use_qk_norm": (False,),
    "use_sliding_window": (False,),
}
# The names under which transformers, and what wraps it, have had a Llama with its output head.
HF_ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM", "FSDPLlamaForCausalLM")
HF_READ = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "rms_norm_eps",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "max_position_embeddings",
    "tie_word_embeddings",
    "architectures",
)
# Say nothing about the forward pass in inference and in LoRA training of a frozen base: keys of a Llama of today, of
# every config from before there was generation_config.json, and of unsloth.
HF_HARMLESS = (
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_model_name_or_path", "_name_or_path", "attention_dropout", "attn_implementation", "bos_token_id", "dtype",
    "eos_token_id", "initializer_range", "is_llama_config", "max_sequence_length", "model_max_length", "pad_token_id",
    "pretraining_tp", "quantization_config", "torch_dtype", "transformers.js_config", "transformers_version",
    "unk_token_id", "use_cache",
    "add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "id2label", "is_encoder_decoder", "label2id", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "prefix", "problem_type", "pruned_heads", "remove_invalid_values",
    "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p",
    "torchscript", "typical_p", "use_bfloat16",
    "unsloth_fixed", "unsloth_tracer", "unsloth_version",
)  # fmt: skip
