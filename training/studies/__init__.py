"""Studies behind the published tables; not in the wheel."""
