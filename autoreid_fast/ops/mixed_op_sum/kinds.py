"""Normalisation of a candidate, the ``kinds`` of the schema of `mixed_op_sum`."""

PLAIN = 0
"""Not at all."""
BATCH = 1
"""By its batch statistics, which the op computes."""
GIVEN = 2
"""By its batch statistics, which the caller has computed; gradients flow through them."""
FIXED = 3
"""By statistics that are constants."""
