"""Files from the Hugging Face hub: pinned, hashed, resumable.

fetch   a repository into a folder
client  requests to the hub: the files of a repository, and their bytes
"""
