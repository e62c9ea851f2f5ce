"""What a base and a hat are worth.

perplexity    nats a token of completions
faithfulness  whether the figures of a document are those of its facts
grid          every hat on every precision, in one table
parity        our outputs against stored ones
live_parity   our outputs against those of transformers, peft and bitsandbytes
oracles       the same base in their hands
report        the page that shows a run
inspect_*     x-rays of hats, formats, bases and single linears, each with its page
"""
