"""What is evaluated: photos, cases, datasets, and downloading them."""
