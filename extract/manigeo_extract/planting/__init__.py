"""Networks in which the place of memorization is known, since the layers that learn the permuted labels are chosen."""
