"""What a person types: the commands of `kebyt5-xm`."""
