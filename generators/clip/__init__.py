"""CLIP's image encoder, which several families of generators look at a person with."""
