"""The parts that a recipe names: losses, samplers, backbones, heads and mixings."""
