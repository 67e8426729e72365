"""What the latents hold: embeddings, active units, divergences."""
