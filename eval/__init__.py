"""What a base and a hat are worth.

grid            every hat on every precision over every task; `columns`, `tasks`, `writing`, `state` are its parts
documents       the task of writing documents; `sentiment`, `entities`, `questions` the others, `public` their data
comparison      what the hat gains and what 4 bit costs, each difference with an interval (`measure`, `bootstrap`)
grid_report     a grid as JSON, sentences and Markdown; `grid_page` as a page, with `intervals_chart`

faithfulness    whether the figures of a document are those of its facts
identities      whether its own arithmetic holds
mentions        names and dates
form            whether it is sound Markdown, JSON or HTML
repetition      whether it goes in circles
memorisation    what it shares with the texts that were trained on
overlap         ROUGE, chrF, self-BLEU
fingpt          FinGPT's own lenient scoring, for published tables
perplexity      of completions, and of a text through a sliding window
harness         lm-evaluation-harness on our models

inspect_*       x-rays of hats, formats, bases and single linears, each with its page, with `plots`
parity          our outputs against stored ones
live_parity     our outputs against those of transformers, peft and bitsandbytes
oracles         the same base in their hands
merging         what merging a hat changed
report          the page of a quickstart, with `charts`, `findings`, `page`
token_page      every token that is trained on, as a page
"""
