"""Causal language models: loading, batching, sampling and scalar heads; tensors in, tensors out."""
