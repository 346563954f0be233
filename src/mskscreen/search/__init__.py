"""The systematic search: a space of protocols, what trains them, and what can be read from the result."""
