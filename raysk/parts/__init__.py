"""What a recipe names: losses, samplers, backbones and heads."""
