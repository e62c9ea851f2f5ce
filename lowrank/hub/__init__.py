"""Files from the Hugging Face hub: pinned, hashed, resumable.

fetch   a repository into a folder
client  what is asked of the hub
"""
