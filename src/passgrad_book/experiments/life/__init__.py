"""How a conflict is born and ends along an exact ascent."""
