"""Move a trained LoRA from aitk_mcp to ComfyUI, by the fastest way that leads there.

options        what is wanted, and what was done
command_line   flags, exit codes, and what a person or a program reads
transfer       one transfer from its choice to its verification
servers        their addresses and tokens, and whose refusal it is
trainer        the models of aitk_mcp, and their bytes
comparison     which of them ComfyUI has, told by their digests
destination    ComfyUI: behind comfy_mcp, or without it
ways           how the bytes can go
attempts       what is tried again
"""
