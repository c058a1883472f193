"""Opens images, recordings and arrays, once and safely."""
