"""Draw clips of a talking presenter: who, where, how they move, and what no input tells."""
