"""Make weights and evidence; nothing imports this room, and no submission holds it."""
