"""How numbers, results and work in progress show themselves, in a terminal and in a notebook."""
