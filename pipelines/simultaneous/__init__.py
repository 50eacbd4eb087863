"""Prompts that are still being typed or spoken: what to do before their commit. Pure; imports no torch.

`segments` cuts a prompt into pieces, `layout` says how a model sees pieces and its notes on them, `policies`
decide when an answer is worth beginning.
"""
