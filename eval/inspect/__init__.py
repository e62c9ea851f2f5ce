"""X-rays: of adapters, number formats, folders of weights, single outputs.

adapter, delta, intruders   what an adapter adds
mitigation, forgetting      an adapter with fewer intruders; what was learned and forgotten, and what comes back
base, outliers              a folder of weights, and where its largest weights are
quant, levels               what a number format costs, and why its levels are where they are
linear, block               one block, one output
influence                   which training documents helped and hurt (computed by train.influence)
sizes                       parameters and bytes
documents                   those that losses are measured on
functions                   a function for each, with its tables, JSON and page: `lowrank.inspect`
*_page                      their HTML pages; token_page that of `data show`
"""
