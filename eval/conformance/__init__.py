"""NF4, rule by rule: vectors that any implementation can be held to through files, and whose rule breaks where.

rules            what NF4 in blocks is, a sentence each, in the order in which one depends on another
cases            inputs, and the outputs that a rule asks for
nested_search    the 8-bit code of a maximum as each of bitsandbytes' back ends finds it
kit              the vectors as files that need no program of ours to be read
grade            answers beside them, and a verdict
implementations  ours and others', answering: bitsandbytes, torchao, plain torch, a format like GGUF's IQ4_NL
grade.c          the grader in C, beside the kit with its schema and licence
"""
