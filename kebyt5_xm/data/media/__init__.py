"""Opening media: images, recordings and arrays, once and safely."""
