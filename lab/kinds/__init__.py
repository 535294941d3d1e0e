"""The presenter as models of other kinds, and how the tuner's plans do on each of them."""
