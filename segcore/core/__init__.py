"""What every other room uses: errors, labels, limits, records, image and output files, git."""
