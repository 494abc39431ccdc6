"""The Open Inference Protocol (KServe v2), over HTTP and gRPC, for clients of Triton and KServe.

One model. Its inputs are `text` and, for pairs, `text_pair`; its outputs are those of each task and
the codes, see `outputs`. `model` is what both transports have in common.
"""
