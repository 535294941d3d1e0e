"""How throughput grows with a cluster: null workers on Ray, and the same rules in virtual time."""
