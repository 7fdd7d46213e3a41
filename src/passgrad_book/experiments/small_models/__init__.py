"""Language models that are trained within seconds."""
