"""`kebyt5-xm export`: a run as a folder to keep, publish and start from, with its model card."""
