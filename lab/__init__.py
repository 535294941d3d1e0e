"""How weights and evidence were made; nothing imports it, and no submission holds it."""
