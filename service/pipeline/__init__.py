"""One file per verb, in the order data goes: collect → reconcile → attribute → price → meter → activity → evaluate →
plan → recheck → enforce → verify → notify. From reconcile to plan it is pure and entered through `decide` alone.
"""
