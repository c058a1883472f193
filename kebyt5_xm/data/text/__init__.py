"""Text: corpora, byte stores and span denoising."""
