"""What several test modules share: fakes, factories and a misbehaving server."""
