"""Images: any common file becomes an upright RGB image."""
