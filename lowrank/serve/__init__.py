"""A workbench and OpenAI's API on this machine: bases, hats and kinds that were named at the start, behind a token.

server             socket, terminal, end
app                the application
guard              Host, Origin, credentials, sizes of bodies, headers of answers
doorkeeper         token, codes, sessions
engine             the one thread that writes texts
waiting            texts of the engine in asyncio; streams that end when nobody is there
shelf              what may be asked for, by name
prompts            what is asked -> tokens
facts              facts as a request brings them -> records
openai_api         /v1
openai_parameters  its parameters: honoured, or refused by name
logprobs           log probabilities of tokens in its shapes
workbench          /session and /api, for the page
kept_files         files of facts that a workbench has open
json_body          bodies, read strictly
errors             refusals
private_log        what may stand on the terminal
static/            the page: HTML, CSS and JavaScript as they are
"""
