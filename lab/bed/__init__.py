"""A test bed for recipes: held-out inputs like those they were tuned on, and inputs unlike them."""
