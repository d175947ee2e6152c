"""How results are told: one file per medium, records in, text or pixels out."""
