"""Code for training and evaluation. The Hub files in the root folder do not import it."""
