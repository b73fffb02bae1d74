"""What only training and evaluation need. The Hub files at the top level import nothing of it."""
