"""Objects as people write them: read from files, checked, ordered, stored with who manages them."""
