"""Text-to-image diffusion as a segmenter, and as a source of images with masks."""
