"""Plugins for ganzoo from outside: discs, and a GAN that finds its latents again."""
