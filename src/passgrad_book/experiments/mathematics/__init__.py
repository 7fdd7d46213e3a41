"""The paper's measurement on mathematics: as printed, as corrected, and along a fine-tuning."""
