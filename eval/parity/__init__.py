"""Our outputs beside those of other programs.

stored            against stored outputs
live              against transformers, peft and bitsandbytes
reference_models  the same base in their hands
merge_drift       what merging changed
"""
